"""Clips on the fake driver: copies of one frame overlap with the computation of its neighbours."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ikc_deploy
from ikc_deploy import Bundle, Upscaler
from ikc_deploy.loops import LR
from ikc_deploy.runtime.backends.base import Binding, Buffer
from ikc_deploy.runtime.backends.cuda_backend import CudaBackend, device_buffer
from ikc_deploy.runtime.given_blur import BlurSettings
from ikc_deploy.video.clip_upscaler import ClipUpscaler
from ikc_deploy.video.video_run import upscale_stream
from tests.fake_cuda import kernels
from tests.fake_cuda.driver import Driver
from tests.fake_cuda.kernels import open_fake_cuda
from tests.samples import photo
from tests.video.memory import FramesInMemory, FramesKept

ITERS = 2
HEIGHT, WIDTH = 96, 100

MODES: list[dict[str, Any]] = [
    {"estimate": "full"},
    {"estimate": "crops"},
    {"estimate": "track"},
    {"sigma": 1.7},
]


def numbered_photo(number: int) -> NDArray[np.uint8]:
    """A frame whose first byte is its number."""
    frame = photo(HEIGHT, WIDTH, number // 3)
    frame[0, 0, 0] = number
    return frame


CLIP = [numbered_photo(number) for number in range(6)]


class CopyTrace:
    """What was queued and computed, in order; the SR network waits for its neighbours' copies."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.late: list[tuple[str, int]] = []
        """Copies for which a network waited in vain."""
        self._changed = threading.Condition()

    def note(self, what: str, number: int) -> None:
        with self._changed:
            self.events.append((what, number))
            self._changed.notify_all()

    def wait_for(self, what: str, number: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: (what, number) in self.events, 60):
                self.late.append((what, number))


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> CopyTrace:
    trace, make, running = CopyTrace(), kernels.graph_function, dict[int, int]()
    upload, download = CudaBackend.upload, CudaBackend.download

    def graph_function(session: Any, wanted: Binding) -> Callable[[], None]:
        run = make(session, wanted)
        whole = wanted.inputs[LR].shape == (1, HEIGHT, WIDTH, 3) if LR in wanted.inputs else False
        if wanted.graph != "sftmd" or not whole:
            return run
        source = device_buffer(wanted.inputs[LR])

        def watched() -> None:
            number = int(ctypes.c_ubyte.from_address(source.address).value)
            trace.note("computes", number)
            # The next frame is uploaded, and the last image downloaded, while this one computes.
            if number + 1 < len(CLIP):
                trace.wait_for("uploaded", number + 1)
            if number > 0:
                trace.wait_for("downloaded", number - 1)
            run()
            trace.note("computed", number)

        return watched

    def uploading(self: CudaBackend, array: Any, buffer: Buffer) -> None:
        upload(self, array, buffer)
        if array.shape == (1, HEIGHT, WIDTH, 3):
            running[id(self)] = int(array[0, 0, 0, 0])
            trace.note("uploaded", running[id(self)])

    def downloading(self: CudaBackend, buffer: Buffer) -> NDArray[Any]:
        array = download(self, buffer)
        if array.shape == (1, 4 * HEIGHT, 4 * WIDTH, 3):
            trace.note("downloaded", running[id(self)])
        return array

    monkeypatch.setattr(kernels, "graph_function", graph_function)
    monkeypatch.setattr(CudaBackend, "upload", uploading)
    monkeypatch.setattr(CudaBackend, "download", downloading)
    return trace


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_copies_of_neighbouring_frames_are_queued_while_a_frame_computes(
    bundle: Bundle, driver: Driver, trace: CopyTrace, mode: dict[str, Any]
) -> None:
    with ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1) as cpu:
        expected = [cpu(frame, **mode).image for frame in CLIP]
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        clip, sink = ClipUpscaler(upscaler, BlurSettings(**mode)), FramesKept()
        upscale_stream(FramesInMemory(CLIP), clip, sink, threading.Event())
    assert trace.late == []
    order = trace.events.index
    for number in range(len(CLIP) - 1):
        assert order(("uploaded", number + 1)) < order(("computed", number))
        assert order(("downloaded", number)) < order(("computed", number + 1))
    for kind in ("uploaded", "downloaded"):
        assert sorted(n for what, n in trace.events if what == kind) == list(range(len(CLIP)))
    for frame, image in zip(sink.written, expected, strict=True):
        assert np.array_equal(frame.rgb, image)
    assert driver.left() == {}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_frame_of_a_clip_goes_up_once_and_down_once_in_memory_that_is_there(
    bundle: Bundle, driver: Driver, mode: dict[str, Any]
) -> None:
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        clip = ClipUpscaler(upscaler, BlurSettings(**mode))
        for _ in range(2):
            before = [driver.count(name) for name in ("uploaded bytes", "downloaded bytes")]
            made, sink = driver.made(), FramesKept()
            upscale_stream(FramesInMemory(CLIP), clip, sink, threading.Event())
            up, down = (
                driver.count(name) - count
                for name, count in zip(("uploaded bytes", "downloaded bytes"), before, strict=True)
            )
            # Beside frames and images, codes of a few hundred bytes.
            frames, images = len(CLIP) * CLIP[0].nbytes, len(CLIP) * sink.written[0].rgb.nbytes
            assert frames <= up < frames + len(CLIP) * 4000
            assert images <= down < images + len(CLIP) * 4000
        # The second run: no memory, streams, events or graphs.
        assert driver.made() == made
    assert driver.left() == {}
