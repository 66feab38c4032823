"""What examples/ promise, run on a bundle that repeats pixels and brightens by corrections."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import ikc_deploy
from ikc_deploy import Bundle, Upscaler
from ikc_deploy.imaging.writing import write_rgb
from tests.repeating import repeated
from tests.samples import photo
from tests.video.clips import make_clip, numbered, numbers, times

TESTED_ELSEWHERE = {"demo", "triton_client"}
"""By `make demo`, and beside a Triton server (tests/scale)."""


@pytest.fixture(scope="module")
def upscaler(bundle: Bundle) -> Upscaler:
    return ikc_deploy.load(bundle, iters=0)


def example(repository: Path, name: str) -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, repository / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by its name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_pyav(repository: Path, upscaler: Upscaler, tmp_path: Path) -> None:
    pts = [0, 500, 2500, 3000, 9000]
    source = make_clip(tmp_path / "in.mp4", map(numbered, range(5)), pts)
    target = tmp_path / "out.mp4"
    status = example(repository, "pyav_loop").upscale_clip(upscaler, str(source), str(target))
    assert status.frames_in == status.frames_out == 5
    assert numbers(target) == list(range(5))
    assert times(target) == times(source)


def test_opencv(repository: Path, upscaler: Upscaler, tmp_path: Path) -> None:
    module = example(repository, "opencv_loop")
    source = make_clip(tmp_path / "in.mkv", map(numbered, range(6)), codec="ffv1")
    shown: list[Any] = []

    def show(frame: Any) -> bool:
        shown.append(frame)
        return len(shown) < 4

    capture = module.cv2.VideoCapture(str(source))
    status = module.upscale_capture(upscaler, capture, show, live=False)
    assert status.frames_out == len(shown) == 4
    for number, frame in enumerate(shown):
        # OpenCV converts from YUV in its own way, within rounding.
        difference = np.abs(frame[:, :, ::-1].astype(int) - repeated(numbered(number)))
        assert difference.max() <= 3


def test_torch(repository: Path, upscaler: Upscaler) -> None:
    frames = np.stack([photo(20, 24, seed) for seed in range(2)])
    tensors = torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255
    upscaled, sigma = example(repository, "torch_tensor").upscale_tensor(upscaler, tensors)
    assert upscaled.dtype == torch.float64
    assert sigma.shape == (2,)
    expected = tensors.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(upscaled, expected)


def test_vapoursynth_on_plain_arrays(repository: Path, upscaler: Upscaler) -> None:
    with ikc_deploy.load(upscaler.bundle, iters=3, streams=1) as correcting:
        filter_ = example(repository, "vapoursynth_filter").PlanarUpscaler(correcting)
        frame = photo(96, 96)
        brighter = []
        for number in (0, 1, 2, 7, 8):
            planes = filter_(number, [frame[:, :, index] for index in range(3)])
            assert all(plane.flags.c_contiguous for plane in planes)
            # Ten levels for each correction: 3 where a clip begins, a little more when tracked.
            seen = np.stack(planes, axis=-1).astype(int) - repeated(frame.astype(int))
            brighter.append(int(np.median(seen)))
    assert brighter == [30, 31, 33, 30, 31]


def test_gstreamer(repository: Path, upscaler: Upscaler, tmp_path: Path) -> None:
    gi = pytest.importorskip("gi", reason="needs PyGObject and GStreamer")
    try:
        gi.require_version("GstApp", "1.0")
    except ValueError as error:
        pytest.skip(f"needs GStreamer with its base plugins: {error}")
    module = example(repository, "gstreamer_elements")
    source = "videotestsrc num-buffers=3 ! video/x-raw,width=33,height=16,framerate=5/1"
    target = f"filesink location={tmp_path / 'out.rgb'}"
    assert module.upscale_pipelines(upscaler, source, target) == 3
    # Rows of 132 pixels need no padding.
    assert (tmp_path / "out.rgb").stat().st_size == 3 * 132 * 64 * 3
    for width in range(8, 12):
        image = photo(9, width)
        assert np.array_equal(module.rgb_of(module.buffer_of(image), width, 9), image)


def test_every_example_is_tested(repository: Path) -> None:
    tested = Path(__file__).read_text()
    untested = [
        path.stem
        for path in (repository / "examples").glob("*.py")
        if f'"{path.stem}"' not in tested and path.stem not in TESTED_ELSEWHERE
    ]
    assert untested == []


def test_typed_user(
    repository: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example(repository, "typed_user")
    write_rgb(photo(16, 20), tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    load = ikc_deploy.load
    monkeypatch.setattr("ikc_deploy.load", lambda **_: load(bundle, iters=0))
    module.main(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_typed_user_passes_mypy_strict(repository: Path, tmp_path: Path) -> None:
    """The package is typed for its users: an error in their code is found, and none in the rest."""
    source = (repository / "examples" / "typed_user.py").read_text()
    mistake = 'upscale("not an upscaler", np.zeros((4, 4, 3), np.uint8))'
    (tmp_path / "right.py").write_text(source)
    (tmp_path / "wrong.py").write_text(f"{source}\n\n{mistake}\n")
    command = ["mypy", "--strict", "--config-file=", "--follow-imports=silent", "--no-pretty"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "right.py", "wrong.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "(checked 2 source files)" in done.stdout, done.stdout + done.stderr
    (error,) = (line for line in done.stdout.splitlines() if " error: " in line)
    assert error.startswith("wrong.py:")
    assert 'incompatible type "str"; expected "Upscaler"' in error
