"""What a call costs, whatever its mode: one upload, one download, and no trace if it fails."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

import ikc_deploy
from ikc_deploy import BackendError, Bundle, Estimate, InputError, OutOfMemoryError, Upscaler
from ikc_deploy.runtime.backends.base import Buffer
from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from ikc_deploy.runtime.executor import UploadedBatch
from ikc_deploy.runtime.tiling import TileSettings
from tests.bundles import export_small
from tests.samples import photo

ITERS = 2


class Counting(OnnxRuntimeCpu):
    """Counts copies of whole frames and images, and allocations; fails on demand."""

    def __init__(self, bundle: Bundle, frame: NDArray[np.uint8]) -> None:
        super().__init__(OnnxRuntimeCpu.open(bundle, threads=1)._sessions)
        self._frame, self._image = frame.size, 16 * frame.size
        self.uploads = self.downloads = self.allocations = 0
        self.failing: set[tuple[int, ...]] = set()
        self.broken = False

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        self.allocations += 1
        if shape in self.failing:
            self.failing.clear()
            raise OutOfMemoryError(f"no room for {shape}")
        return super().allocate(shape, dtype)

    def upload(self, array: NDArray[np.generic], buffer: Buffer) -> None:
        self.uploads += array.size >= self._frame
        super().upload(array, buffer)

    def download(self, buffer: Buffer) -> NDArray[np.generic]:
        if self.broken and len(buffer.shape) == 4:
            self.broken = False
            raise BackendError("the image is lost")
        array = super().download(buffer)
        self.downloads += array.size >= self._image
        return array


MODES: list[dict[str, object]] = [
    {"estimate": "full"},
    {"estimate": "crops"},
    {"estimate": "track"},
    {"sigma": 1.7},
]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_frame_is_uploaded_once_and_its_image_downloaded_once(
    bundle: Bundle, mode: dict[str, object]
) -> None:
    frame = photo(96, 100)
    backend = Counting(bundle, frame)
    with Upscaler(bundle, backend, ITERS) as upscaler:
        for _ in range(2):
            upscaler(frame, **mode)  # type: ignore[arg-type]
        made = backend.allocations
        for number in (3, 4):
            upscaler(frame, **mode)  # type: ignore[arg-type]
            assert (backend.uploads, backend.downloads) == (number, number)
        assert backend.allocations == made
        # Every step has an image; the frame is still uploaded once.
        steps = upscaler(frame, steps=True, **mode).steps  # type: ignore[arg-type]
        assert (backend.uploads, backend.downloads) == (5, 4 + len(steps))


def test_the_levels_of_a_given_blur_need_no_second_upload(tmp_path: Path) -> None:
    bundle, frame = export_small(tmp_path, "film"), photo(40, 48)
    backend = Counting(bundle, frame)
    with Upscaler(bundle, backend, ITERS) as upscaler:
        assert upscaler(frame, sigma=1.7).noise is not None
    assert (backend.uploads, backend.downloads) == (1, 1)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_tiled_frame_is_copied_as_a_whole_for_the_predictor_only(
    bundle: Bundle, mode: dict[str, object]
) -> None:
    frame = photo(96, 200)
    backend = Counting(bundle, frame)
    with Upscaler(bundle, backend, ITERS, tiles=TileSettings(64)) as upscaler:
        upscaler(frame, **mode)  # type: ignore[arg-type]
        made = backend.allocations
        upscaler(frame, **mode)  # type: ignore[arg-type]
    assert backend.allocations == made
    assert (backend.uploads, backend.downloads) == (0 if "sigma" in mode else 2, 0)


@pytest.mark.parametrize("estimate", ["crops", "track"])
def test_tiles_change_no_code(small_bundle: Bundle, estimate: Estimate) -> None:
    frame = photo(96, 200)
    with (
        ikc_deploy.load(small_bundle, "onnxruntime", ITERS, threads=1) as whole,
        ikc_deploy.load(small_bundle, "onnxruntime", ITERS, threads=1, tile=64) as tiled,
    ):
        for _ in range(2):
            expected = whole(frame, estimate=estimate).codes
            assert np.array_equal(tiled(frame, estimate=estimate).codes, expected)


CLIP = [photo(160, 144, 1)] * 4 + [photo(160, 144, 2)] * 3
CROPS = (4, 32, 32, 3)


@pytest.mark.parametrize("failing", [(1, 640, 576, 3), CROPS, (1, 160, 144, 3)], ids=str)
@pytest.mark.parametrize("at", [0, 1, 4])
def test_running_out_of_memory_does_not_advance_the_tracker(
    bundle: Bundle, failing: tuple[int, ...], at: int
) -> None:
    """A session is dropped before frame `at`, and one of its buffers cannot be made again."""

    def codes(upscaler: Upscaler, backend: Counting | None) -> list[NDArray[np.float32]]:
        found = []
        for number, frame in enumerate(CLIP):
            if backend is not None and number == at:
                for side in (20, 21, 22, 23):
                    upscaler(photo(side, side), sigma=1.0)
                backend.failing.add(failing)
            found.append(upscaler(frame, estimate="track").codes)
        return found

    with ikc_deploy.load(bundle, "onnxruntime", ITERS) as upscaler:
        unbroken = codes(upscaler, None)
    assert [len(each) for each in unbroken] == [3, 2, 2, 2, 3, 2, 2]
    backend = Counting(bundle, CLIP[0])
    with (
        Upscaler(bundle, backend, ITERS) as upscaler,
        pytest.warns(RuntimeWarning, match="no room.*continuing with tiles"),
    ):
        broken = codes(upscaler, backend)
    assert backend.failing == set()
    # The repeating network predicts the same code in a tile as in the whole frame.
    for ours, expected in zip(broken, unbroken, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_frame_that_fails_does_not_advance_the_tracker(bundle: Bundle, at: int) -> None:
    backend = Counting(bundle, CLIP[0])
    with (
        ikc_deploy.load(bundle, "onnxruntime", ITERS) as sound,
        Upscaler(bundle, backend, ITERS) as upscaler,
    ):
        stream = sound.stream(CLIP)
        for number, frame in enumerate(CLIP):
            if number == at:
                backend.broken = True
                with pytest.raises(BackendError, match="lost"):
                    upscaler(frame, estimate="track")
            result = upscaler(frame, estimate="track")
            assert np.array_equal(result.codes, next(stream).codes)


@pytest.mark.parametrize("estimate", ["full", "crops", "track"])
def test_streams_submission_and_calls_give_the_same_bits(
    small_bundle: Bundle, estimate: Estimate
) -> None:
    with ikc_deploy.load(small_bundle, "onnxruntime", ITERS, threads=1) as upscaler:
        called = [upscaler(frame, estimate=estimate) for frame in CLIP]
        streamed = list(upscaler.stream(CLIP, estimate=estimate))
        for one, other in zip(called, streamed, strict=True):
            assert np.array_equal(one.image, other.image)
        if estimate != "track":
            futures = [upscaler.submit(frame, estimate=estimate) for frame in CLIP]
            for one, future in zip(called, futures, strict=True):
                assert np.array_equal(one.image, future.result(60).image)


class Overlapping(Counting):
    """Of a clip, two frames are upscaled at the same time, as on a GPU."""

    default_streams = 2


def test_a_tracked_clip_overlaps_and_keeps_its_bits(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first frame's image waits until the second frame is on the device and predicted."""
    predicted, uploads = threading.Event(), set[int]()
    predict, upscale = UploadedBatch.ensure_predicted, UploadedBatch.upscale

    def predicting(self: UploadedBatch) -> None:
        predict(self)
        uploads.add(id(self))
        if len(uploads) == 2:
            predicted.set()

    def upscaling(self: UploadedBatch, codes: NDArray[np.float32]) -> object:
        assert predicted.wait(60)
        return upscale(self, codes)

    with ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1) as upscaler:
        expected = list(upscaler.stream(CLIP))
    monkeypatch.setattr(UploadedBatch, "upscale", upscaling)
    with Upscaler(bundle, Overlapping(bundle, CLIP[0]), ITERS) as upscaler:
        monkeypatch.setattr(UploadedBatch, "ensure_predicted", predicting)
        for result, wanted in zip(upscaler.stream(CLIP), expected, strict=True):
            assert np.array_equal(result.codes, wanted.codes)
            assert np.array_equal(result.image, wanted.image)


def test_frames_that_fail_do_not_hold_up_a_clip_that_overlaps(bundle: Bundle) -> None:
    small = np.zeros((3, 3, 3), np.uint8)
    with (
        ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1) as sound,
        Upscaler(bundle, Overlapping(bundle, CLIP[0]), ITERS) as upscaler,
    ):
        expected = iter(list(sound.stream(CLIP)))
        stream = upscaler.stream([CLIP[0], small, small, *CLIP[1:]])
        assert np.array_equal(next(stream).codes, next(expected).codes)
        for _ in range(2):
            with pytest.raises(InputError, match="at least 8 pixels"):
                next(stream)
        for result, wanted in zip(stream, expected, strict=True):
            assert np.array_equal(result.codes, wanted.codes)
        # A stream that ends early leaves the upscaler as it was.
        with upscaler.stream(CLIP) as stream:
            next(stream)
        assert len(list(upscaler.stream(CLIP))) == len(CLIP)


def test_a_clip_that_overlaps_keeps_its_codes_when_memory_runs_out(bundle: Bundle) -> None:
    backend = Overlapping(bundle, CLIP[0])
    with ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1) as upscaler:
        expected = list(upscaler.stream(CLIP))
    backend.failing.add((1, 640, 576, 3))
    with (
        Upscaler(bundle, backend, ITERS) as upscaler,
        pytest.warns(RuntimeWarning, match="no room.*continuing with tiles"),
    ):
        results = list(upscaler.stream(CLIP))
    assert backend.failing == set()
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.codes, wanted.codes, atol=1e-5)
