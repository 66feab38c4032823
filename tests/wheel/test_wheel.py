"""The wheel outside the checkout: what the base install does, and the commands of the README."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.kernels import gaussian_kernel
from tests.samples import photo
from tests.video.clips import make_clip
from tests.wheel.conftest import Installed

pytestmark = pytest.mark.wheel

SHELL_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)

NEED_MORE = (
    "--camera",
    "--ray",
    "Set5",
    "FKP_x4.pt",
    "F.pth",
    "DANv2.pth",
    "--triton",
    "--verify",
    "x4-lite --out",
)
"""Parts of commands that need a camera, Ray, a data set, a published checkpoint, or an engine."""

SLOW = {"ikc-offline", "ikc-bench", "ikc-web"}
"""Commands that take minutes or do not end; tests/repository/test_docs.py checks their options."""


def commands(document: Path) -> list[str]:
    lines = "\n".join(SHELL_BLOCK.findall(document.read_text())).splitlines()
    return [line for line in lines if line.startswith("ikc-")]


def material(folder: Path) -> None:
    """Write the inputs that the README names."""
    write_rgb(photo(24, 32), folder / "photo.png")
    for index in range(4):
        write_rgb(photo(160, 192, seed=index), folder / "photos" / f"{index}.png")
    make_clip(folder / "clip.mp4", [photo(32, 48, seed=index) for index in range(3)])
    np.save(folder / "kernel.npy", gaussian_kernel(1.5))


def test_the_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size < 30 * 10**6
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for part in ("py.typed", "weights/x4-lite.safetensors", "weights/templates/x4-lite.zip"):
        assert f"ikc_deploy/{part}" in names
    assert any(name.endswith("share/ikc-deploy/training/x4-lite.toml") for name in names)
    assert any(name.endswith("share/ikc-deploy/engines/rtx-desktop.toml") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]


def test_the_base_install_upscales_without_torch(base: Installed) -> None:
    listed = base.run("python", "-m", "pip", "list", "--format", "freeze").stdout
    assert not re.search(r"(?m)^(torch|onnx|onnxscript)==", listed)
    material(base.folder)
    done = base.run("ikc-upscale", "photo.png", "-o", "upscaled.png")
    assert done.returncode == 0, done.stderr
    assert read_rgb(base.folder / "upscaled.png").shape == (96, 128, 3)
    for weights, scale in (("x2-lite", 2), ("x3-lite", 3), ("x4-aniso", 4)):
        name = f"{weights}.png"
        done = base.run("ikc-upscale", "photo.png", "-o", name, "--weights", weights)
        assert done.returncode == 0, done.stderr
        assert read_rgb(base.folder / name).shape == (24 * scale, 32 * scale, 3)


def test_the_python_of_the_readme_runs_in_the_base_install(
    base: Installed, repository: Path
) -> None:
    material(base.folder)
    (block,) = PYTHON_BLOCK.findall((repository / "README.md").read_text())
    done = base.run("python", "-c", block)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(96, 128, 3)")


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("ikc-export --fp16", "export"),
        ("ikc-train x4-lite --out run", "training"),
        ("ikc-offline photo.png --method dip-fkp --scale 2 -o found", "offline"),
        ("ikc-upscale clip.mp4 -o upscaled.mp4", "video"),
    ],
)
def test_what_the_base_install_lacks_is_one_line(base: Installed, command: str, extra: str) -> None:
    material(base.folder)
    done = base.run(*command.split())
    assert done.returncode == 2, done.stderr
    assert f"pip install 'ikc-deploy[{extra}]'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_recipes_and_targets_are_found_by_name(full: Installed) -> None:
    done = full.run("ikc-train", "x4", "--out", "run", "--data", "photos")
    # The recipe is read; its data are not there.
    assert "photos" in done.stderr, done.stderr
    assert "no recipe" not in done.stderr
    done = full.run("ikc-train", "nothing", "--out", "run")
    assert "x4-lite" in done.stderr
    code = "from ikc_deploy.engines.targets import read_target; print(read_target('rtx-desktop'))"
    assert "8.9" in full.run("python", "-c", code).stdout
    code = "import ikc_deploy; print(ikc_deploy.__file__)"
    assert "site-packages" in full.run("python", "-c", code).stdout


def test_every_command_of_the_readme_that_needs_no_gpu_runs(
    full: Installed, repository: Path
) -> None:
    work = full.folder / "readme"
    material(work)
    run = []
    for line in commands(repository / "README.md"):
        words = shlex.split(line, comments=True)
        text = " ".join(words)
        if any(part in text for part in NEED_MORE) or words[0] in SLOW or "--engine" in text:
            continue
        if "--usrnet" in text or "--kernel " in text or "--bundle" in text:
            _prepare(full, work, text)
        done = full.run(*words, cwd=work)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        run.append(words[0])
    assert len(run) >= 3


def _prepare(full: Installed, work: Path, text: str) -> None:
    """Make the bundles that a command names."""
    for precision in ("fp16", "fp32"):
        folder = f"export/x4-lite-{precision}"
        if folder in text and not (work / folder).exists():
            done = full.run("ikc-export", f"--{precision}", cwd=work)
            assert done.returncode == 0, done.stderr
