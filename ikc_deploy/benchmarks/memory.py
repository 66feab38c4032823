"""Peak memory of one frame, in a process that does nothing else.

    python -m ikc_deploy.benchmarks.memory export/x4-lite-fp32 '{"height": 64, "width": 64}'

opens the bundle, runs one frame and prints the largest resident set that the process ever had, in
MiB: interpreter, libraries, graphs and buffers together, which is what a deployment must provide.
Memory on a GPU is not in it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from ikc_deploy.benchmarks.case import Case
from ikc_deploy.errors import BackendError, IkcError

_STATUS: Final = Path("/proc/self/status")


def peak_memory_mib(bundle: Path, case: Case) -> float | None:
    """Run `case` once in a new process: its peak resident set in MiB, None if the system is mute.

    Raises `BackendError` with the process's last words if it dies.
    """
    command = [sys.executable, "-m", __name__, str(bundle), json.dumps(asdict(case))]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        said = child.stderr.strip().splitlines()
        reason = said[-1] if said else f"it ended with {child.returncode}, as when memory runs out"
        raise BackendError(
            f"memory for a frame of {case.width}x{case.height} could not be measured: {reason}"
        )
    peak: float | None = json.loads(child.stdout.splitlines()[-1])
    return peak


def own_peak_mib() -> float | None:
    """The largest resident set of this process since it began, in MiB."""
    if _STATUS.is_file():
        # Not ru_maxrss: on Linux it outlives exec, so a child starts with its parent's peak.
        kib = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        return round(int(kib[1]) / 2**10, 1) if kib else None
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _measure(bundle: str, case: Case) -> float | None:
    with case.open(bundle) as upscaler:
        upscaler(case.frame(upscaler))
    return own_peak_mib()


if __name__ == "__main__":
    try:
        print(json.dumps(_measure(sys.argv[1], Case(**json.loads(sys.argv[2])))))
    except IkcError as failure:
        sys.exit(str(failure))
