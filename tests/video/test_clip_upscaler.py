"""Clips through the pipeline: the bits of single calls, in order, and nothing lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ikc_deploy
from ikc_deploy import Bundle, InputError, Postprocessing, Upscaler
from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from ikc_deploy.runtime.given_blur import BlurSettings
from ikc_deploy.runtime.memory import PixelMemory
from ikc_deploy.runtime.pipeline import CAPACITY, Pipeline
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.video.clip_upscaler import ClipUpscaler
from ikc_deploy.video.interfaces import Frame
from ikc_deploy.video.video_run import upscale_stream
from tests.samples import photo
from tests.video.clips import TICK
from tests.video.memory import FramesInMemory, FramesKept

ITERS = 2
# A moving scene, a cut, and a still one.
CLIP = [np.ascontiguousarray(photo(96, 106, 1)[:, n : n + 100]) for n in range(3)]
CLIP += [photo(96, 100, 2)] * 2

MODES: list[dict[str, Any]] = [
    {"estimate": "full"},
    {"estimate": "crops"},
    {"estimate": "track"},
    {"estimate": "track", "sigma": 1.8},
]


def called(upscaler: Upscaler, frames: list[NDArray[np.uint8]], **mode: Any) -> list[Any]:
    """The image of every frame of one clip, call by call."""
    return [upscaler(frame, **mode).image for frame in frames]


def assert_written(written: list[Frame], expected: list[NDArray[np.uint8]]) -> None:
    assert [frame.pts for frame in written] == [TICK * number for number in range(len(expected))]
    for frame, image in zip(written, expected, strict=True):
        assert np.array_equal(frame.rgb, image)


@pytest.mark.parametrize("tile", ["auto", 64])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_clip_has_the_bits_of_single_calls(
    small_bundle: Bundle, mode: dict[str, Any], tile: Any
) -> None:
    def opened(streams: int = 1) -> Upscaler:
        return ikc_deploy.load(
            small_bundle, "onnxruntime", ITERS, threads=1, streams=streams, tile=tile
        )

    with opened() as upscaler:
        expected = called(upscaler, CLIP, **mode)
    with opened() as upscaler:
        # A run that is resumed begins with a scene.
        resumed = expected[:2] + called(upscaler, CLIP[2:], **mode)
    stop = threading.Event()
    for streams in (1, 2):
        with opened(streams) as upscaler:
            clip = ClipUpscaler(upscaler, BlurSettings(**mode))
            sink = FramesKept()
            outcome = upscale_stream(FramesInMemory(CLIP), clip, sink, stop)
            assert (outcome.frames, outcome.interrupted) == (len(CLIP), False)
            assert_written(sink.written, expected)
            broken = FramesKept(full=2)
            with pytest.raises(OSError, match="full"):
                upscale_stream(FramesInMemory(CLIP), clip, broken, stop)
            assert broken.aborted and broken.finished == []
            sink = FramesKept(broken.written)
            assert upscale_stream(FramesInMemory(CLIP), clip, sink, stop).frames == len(CLIP)
            assert_written(sink.written, resumed)


@pytest.mark.parametrize("streams", [1, 2])
def test_postprocessing_is_that_of_images(small_bundle: Bundle, streams: int) -> None:
    postprocessing = Postprocessing(factor=2.5, strength=0.6, preview=True)
    with ikc_deploy.load(small_bundle, "onnxruntime", ITERS, streams=streams) as upscaler:
        images = called(upscaler, CLIP, estimate="crops")
        expected = [
            postprocessing(frame, image, (240, 250))
            for frame, image in zip(CLIP, images, strict=True)
        ]
        clip = ClipUpscaler(upscaler, BlurSettings(estimate="crops"), postprocessing)
        sink = FramesKept()
        upscale_stream(FramesInMemory(CLIP), clip, sink, threading.Event())
    assert_written(sink.written, expected)


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_an_error_comes_after_the_frames_before_it(bundle: Bundle, streams: int) -> None:
    """Of the decoder, of the upscaler, and of the encoder; the next clip is upscaled in full."""
    with ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1, streams=streams) as upscaler:
        clip, stop = ClipUpscaler(upscaler), threading.Event()
        expected = called(upscaler, CLIP, estimate="track")
        small = np.zeros((3, 3, 3), np.uint8)
        runs: list[tuple[FramesInMemory, FramesKept, type[Exception]]] = [
            (FramesInMemory(CLIP[:3], ValueError("damaged")), FramesKept(), ValueError),
            (FramesInMemory([*CLIP[:3], small, *CLIP[3:]]), FramesKept(), InputError),
            (FramesInMemory(CLIP), FramesKept(full=3), OSError),
        ]
        for source, sink, error in runs:
            with pytest.raises(error):
                upscale_stream(source, clip, sink, stop)
            assert_written(sink.written, expected[:3])
            assert sink.aborted and sink.finished == []
            left = {thread.name for thread in threading.enumerate()}
            assert not left & {"ikc-reader", "ikc-feeder"}
            whole = FramesKept()
            upscale_stream(FramesInMemory(CLIP), clip, whole, stop)
            assert_written(whole.written, expected)


@pytest.mark.parametrize("streams", [1, 2])
def test_a_stop_leaves_the_first_frames_without_a_gap(bundle: Bundle, streams: int) -> None:
    stop = threading.Event()
    with ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1, streams=streams) as upscaler:
        expected = called(upscaler, CLIP * 5, estimate="crops")
        clip, sink = ClipUpscaler(upscaler, BlurSettings(estimate="crops")), FramesKept()

        def progress(count: int) -> None:
            if count == 4:
                stop.set()

        outcome = upscale_stream(FramesInMemory(CLIP * 5), clip, sink, stop, progress)
    assert outcome.interrupted and sink.finished == [False]
    # Those that were in progress or done, and none after a gap.
    assert 4 <= len(sink.written) == outcome.frames <= 4 + CAPACITY + 1 + streams
    assert_written(sink.written, expected[: len(sink.written)])


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_frames_in_memory_are_bounded_by_the_queues(bundle: Bundle, streams: int) -> None:
    """An encoder that is slower than everything before it."""
    source = FramesInMemory(CLIP * 6)
    ahead = []

    class Slow(FramesKept):
        def write(self, frame: Frame) -> None:
            before = -1
            while source.read != before:
                before = source.read
                time.sleep(0.05)
            ahead.append(source.read - len(self.written))
            super().write(frame)

    with ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1, streams=streams) as upscaler:
        clip = ClipUpscaler(upscaler, BlurSettings(1.7))
        upscale_stream(source, clip, Slow(), threading.Event())
    # LR: CAPACITY in the queue and one that is read; SR: CAPACITY, one that waits, one written.
    assert max(ahead) <= 2 * CAPACITY + 3


class CountingClones(OnnxRuntimeCpu):
    """Counts its clones."""

    clones = 0

    def clone(self) -> OnnxRuntimeCpu:
        self.clones += 1
        return super().clone()


@pytest.mark.parametrize(
    ("tile", "frames", "less", "clones"),
    [
        ("auto", 2, 1, 0),
        ("auto", 2, 0, 1),
        (None, 2, 1, 0),
        # Two tiles fit, though two frames do not.
        (64, 2, 1, 1),
        ("auto", 1, 1, 0),
    ],
)
def test_frames_that_fit_into_memory_only_one_by_one_go_one_by_one(
    bundle: Bundle, tile: Any, frames: int, less: int, clones: int
) -> None:
    pixel_bytes = PixelMemory.of_bundle(bundle.manifest, on_cpu=True).restore
    tiles = TileSettings(tile, max_memory=frames * 96 * 100 * pixel_bytes - less)
    backend = CountingClones(OnnxRuntimeCpu.open(bundle, threads=1)._sessions)
    with Upscaler(bundle, backend, ITERS, 2, tiles=tiles) as upscaler:
        sink = FramesKept()
        upscale_stream(FramesInMemory(CLIP[:3]), ClipUpscaler(upscaler), sink, threading.Event())
        assert len(sink.written) == 3
    assert backend.clones == clones


def test_submitted_frames_streams_clips_and_cameras_run_on_one_pipeline(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Pipeline[Any, Any]] = []
    submit = Pipeline.submit

    def noted(self: Pipeline[Any, Any], *arguments: Any) -> Any:
        used.append(self)
        return submit(self, *arguments)

    monkeypatch.setattr(Pipeline, "submit", noted)
    with ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1, streams=2) as upscaler:
        clip, stop = ClipUpscaler(upscaler), threading.Event()
        ways: list[Callable[[], object]] = [
            lambda: upscaler.submit(CLIP[0], estimate="crops").result(60),
            lambda: list(upscaler.stream(CLIP[:3])),
            lambda: list(upscaler.stream(CLIP[:3], live=True)),
            lambda: upscale_stream(FramesInMemory(CLIP[:3]), clip, FramesKept(), stop),
            lambda: upscale_stream(FramesInMemory(CLIP[:3]), clip, FramesKept(), stop, live=True),
        ]
        for way in ways:
            before = len(used)
            way()
            assert len(used) > before
        assert all(each is used[0] for each in used)
