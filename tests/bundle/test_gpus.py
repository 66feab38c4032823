from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy.bundle.gpus import Gpu, find_gpus
from tests.machines import nvidia_smi


def test_gpus_are_read_off_nvidia_smi(tmp_path: Path) -> None:
    command = nvidia_smi(
        tmp_path,
        "echo 'NVIDIA GeForce RTX 4090, 580.95.05, 24564, 8.9'\n"
        "echo 'Orin (nvgpu), 540.4.0, [N/A], 8.7'",
    )
    assert find_gpus(command) == (
        (
            Gpu("NVIDIA GeForce RTX 4090", "580.95.05", 24564, "8.9"),
            Gpu("Orin (nvgpu)", "540.4.0", None, "8.7"),
        ),
        "",
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'it cannot talk to the driver'; exit 9", "failed: it cannot talk to the driver"),
        ("exit 6", "failed: exit code 6"),
        ("true", "lists none"),
    ],
)
def test_a_machine_without_a_working_gpu_says_why(tmp_path: Path, body: str, reason: str) -> None:
    gpus, why = find_gpus(nvidia_smi(tmp_path, body))
    assert gpus == () and why.endswith(reason)


def test_a_machine_without_a_driver_says_so() -> None:
    assert find_gpus("no-such-command") == ((), "no-such-command is not installed")
