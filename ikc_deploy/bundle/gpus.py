"""The NVIDIA GPUs of this machine, as nvidia-smi lists them: no CUDA library is loaded."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Final

_NVIDIA_SMI_SECONDS: Final = 10.0
_GPU_FIELDS: Final = "name,driver_version,memory.total,compute_cap"


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, as its driver reports it."""

    name: str
    driver: str
    memory_mib: int | None
    """Memory in MiB; None where the CPU shares it and the driver reports no size (Jetson)."""
    compute_capability: str


def find_gpus(command: str = "nvidia-smi") -> tuple[tuple[Gpu, ...], str]:
    """Return the GPUs that the driver reports, and the reason if there are none.

    Args:
        command: The nvidia-smi executable.

    Returns:
        The GPUs, and a reason for messages, empty if there are GPUs.
    """
    query = [command, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=False
        )
    except FileNotFoundError:
        return (), f"{command} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"{command} does not run: {error}"
    if answer.returncode != 0:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        return (), f"{command} failed: {said[0] if said else f'exit code {answer.returncode}'}"
    gpus = tuple(_parse_gpu(line) for line in answer.stdout.splitlines() if line.strip())
    return gpus, "" if gpus else f"{command} lists none"


def _parse_gpu(line: str) -> Gpu:
    name, driver, memory, capability = (part.strip() for part in line.rsplit(",", 3))
    return Gpu(name, driver, int(memory) if memory.isdigit() else None, capability)
