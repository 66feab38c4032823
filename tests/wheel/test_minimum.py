"""The base install on the oldest versions of its dependencies (`make test-minimum`)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb
from tests.samples import photo
from tests.wheel.conftest import environment

pytestmark = pytest.mark.wheel


def test_the_base_install_runs_on_the_oldest_versions(
    wheel: Path, repository: Path, tmp_path: Path
) -> None:
    constraints = repository / "constraints-minimum.txt"
    oldest = environment(wheel, constraints, tmp_path, "--quiet")
    listed = oldest.run("python", "-m", "pip", "list", "--format", "freeze").stdout
    found = dict(re.findall(r"(?m)^([\w-]+)==(.+)$", listed))
    assert found["numpy"].startswith("1.26")
    write_rgb(photo(24, 32), oldest.folder / "in" / "photo.png")
    write_rgb(photo(24, 32), oldest.folder / "in" / "photo.tif")
    done = oldest.run("ikc-upscale", "in", "-o", "out")
    assert done.returncode == 0, done.stderr
    for name in ("photo.png", "photo.tif"):
        assert read_rgb(oldest.folder / "out" / name).shape == (96, 128, 3)
    for command in ("ikc-doctor", "ikc-export --help", "ikc-inspect --help", "ikc-bench --help"):
        done = oldest.run(*command.split())
        assert done.returncode == 0, f"{command}\n{done.stderr}"
