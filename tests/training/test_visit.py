"""The script for a borrowed machine, rehearsed on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from ikc_deploy.imaging.image_io import write_rgb
from tests.samples import photo


def test_a_run_goes_on_from_machine_to_machine(repository: Path, tmp_path: Path) -> None:
    write_rgb(photo(64, 60), tmp_path / "images" / "0.png")
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PART_MB": "1"}

    def visit(machine: str, minutes: str) -> Path:
        script, out = repository / "training" / "visit.sh", tmp_path / f"{machine}-out"
        arguments = (repository / "training" / "smoke.toml", tmp_path / machine, minutes)
        subprocess.run(
            [script, *arguments, out, "cpu", tmp_path / "images"], env=environment, check=True
        )
        return out

    # So short that not one step is made.
    visit("first", "0.00001").rename(tmp_path / "second.parts")
    visit("second", "5")
    visit("unbroken", "5")
    parted, whole = (
        load_file(tmp_path / name / "checkpoint.safetensors") for name in ("second", "unbroken")
    )
    assert all(torch.equal(parted[key], whole[key]) for key in whole)
    # A finished run is not trained any further, and comes back whole.
    visit("unbroken", "5").rename(tmp_path / "third.parts")
    visit("third", "5")
    assert (tmp_path / "third" / "checkpoint.safetensors").is_file()
