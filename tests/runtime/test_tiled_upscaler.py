from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import DTypeLike

import ikc_deploy
from ikc_deploy import Bundle, OutOfMemoryError, Upscaler
from ikc_deploy.runtime.backends.base import Buffer
from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from ikc_deploy.runtime.memory import PixelMemory, available_memory
from ikc_deploy.runtime.tiling import TileSettings
from tests.repeating import repeated
from tests.samples import photo


class Cramped(OnnxRuntimeCpu):
    """Has room for LR frames of `room` pixels; remembers the largest it gave."""

    def __init__(self, bundle: Bundle, room: int = 10**9) -> None:
        super().__init__(OnnxRuntimeCpu.open(bundle)._sessions)
        self.room, self.largest = room, 0

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        if len(shape) == 4 and dtype == np.uint8 and shape[-1] == 3:
            pixels = shape[0] * shape[1] * shape[2] // 16
            if pixels > self.room:
                raise OutOfMemoryError(f"no room for {pixels} pixels")
            self.largest = max(self.largest, pixels)
        return super().allocate(shape, dtype)


def test_out_of_memory_halves_the_frame_once_with_a_warning_and_loses_nothing(
    bundle: Bundle,
) -> None:
    frame, iters = photo(150, 200), 2
    with Upscaler(bundle, Cramped(bundle, room=100 * 100), iters) as upscaler:
        with pytest.warns(RuntimeWarning, match=r"no room.*continuing with tiles of 96 LR pixels"):
            first = upscaler(frame)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = upscaler(frame)
    brighter = np.clip(repeated(frame.astype(int)) + 10 * iters, 0, 255)
    assert np.array_equal(first.image, brighter)
    assert np.array_equal(again.image, first.image)
    assert first.codes.shape == (3, 10)


def test_tiles_are_halved_too_but_only_once(bundle: Bundle) -> None:
    backend = Cramped(bundle, room=70 * 70)
    with Upscaler(bundle, backend, 0, tiles=TileSettings(128)) as upscaler:
        with pytest.warns(RuntimeWarning, match="tiles of 64"):
            image = upscaler(photo(150, 140)).image
        assert np.array_equal(image, repeated(photo(150, 140)))
        backend.room = 1000
        with pytest.raises(OutOfMemoryError, match="no room"):
            upscaler(photo(60, 60))


def test_without_tiles_running_out_is_an_error(bundle: Bundle) -> None:
    with (
        Upscaler(bundle, Cramped(bundle, 100), tiles=TileSettings(None)) as upscaler,
        pytest.raises(OutOfMemoryError),
    ):
        upscaler(photo(150, 150))


@pytest.mark.parametrize("estimate", ["full", "crops", "track"])
def test_memory_is_kept_to_what_is_allowed(bundle: Bundle, estimate: ikc_deploy.Estimate) -> None:
    pixel_bytes = PixelMemory.of_bundle(bundle.manifest, on_cpu=True).restore
    allowed = 120 * 120 * pixel_bytes
    backend = Cramped(bundle)
    tiles = TileSettings("auto", allowed)
    frame = photo(300, 310)
    with Upscaler(bundle, backend, 1, estimate=estimate, tiles=tiles) as upscaler:
        image = upscaler(frame).image
    assert np.array_equal(image, np.clip(repeated(frame.astype(int)) + 10, 0, 255))
    assert 0 < backend.largest * pixel_bytes <= allowed


def test_one_code_serves_all_tiles(bundle: Bundle) -> None:
    """The repeating network brightens by the code, so a tile with another one would be seen."""
    frame = photo(200, 260)
    with ikc_deploy.load(bundle, iters=3, tile=64) as upscaler:
        result = upscaler(frame, steps=True)
    assert len(result.steps) == 4
    for step, image in enumerate(result.steps):
        expected = np.clip(repeated(frame.astype(int)) + 10 * step, 0, 255)
        assert np.array_equal(image, expected)


def test_batches_are_tiled_frame_by_frame(bundle: Bundle) -> None:
    frames = np.stack([photo(70, 100, seed) for seed in range(3)])
    with ikc_deploy.load(bundle, tile=64) as upscaler:
        result = upscaler(frames, sigma=[1.0, 1.5, 2.0])
        for index, sigma in enumerate((1.0, 1.5, 2.0)):
            alone = upscaler(frames[index], sigma=sigma)
            assert np.array_equal(result.image[index], alone.image)


def test_available_memory_is_the_systems_or_the_containers(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    cgroup.mkdir()
    assert available_memory(proc, cgroup) is None
    (proc / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:     500 kB\n")
    assert available_memory(proc, cgroup) == 500 * 1024
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("1024\n")
    assert available_memory(proc, cgroup) == 500 * 1024
    (cgroup / "memory.max").write_text("103424\n")
    assert available_memory(proc, cgroup) == 100 * 1024


@pytest.mark.parametrize("iters", [0, 1])
def test_a_process_needs_no_more_memory_than_allowed(iters: int) -> None:
    """The peak of a process, beyond what a small frame needs, with a frame that is cut."""
    script = rf"""
import re, numpy, ikc_deploy
from pathlib import Path
def memory(kind):
    return 1024 * int(re.search(kind + r":\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
noise = numpy.random.default_rng(0).integers(0, 256, (240, 256, 3), dtype=numpy.uint8)
allowed = 64 * 2**20
with ikc_deploy.load(
    backend="onnxruntime", iters={iters}, estimate="full", threads=1, max_memory=allowed
) as upscaler:
    upscaler(noise[:64, :64])
    # From here on, the peak is that of the large frame.
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    image = upscaler(noise).image
print((memory("VmHWM") - before - image.nbytes) / allowed)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 0.3 < float(done.stdout) < 1
