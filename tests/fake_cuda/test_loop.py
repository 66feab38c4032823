from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest

import ikc_deploy
from ikc_deploy import BackendError, Bundle, InputError, OutOfMemoryError, Result, Upscaler
from ikc_deploy.runtime.backends import cuda_backend
from ikc_deploy.runtime.backends.base import CudaGraphUse
from ikc_deploy.runtime.cuda.cuda_graphs import CudaGraph, capture
from ikc_deploy.runtime.cuda.device import open_device
from ikc_deploy.runtime.cuda.streams import CudaStream
from ikc_deploy.runtime.frames import FrameShape
from ikc_deploy.runtime.session import Session
from ikc_deploy.runtime.tiling import TileSettings
from tests.fake_cuda.arrays import WithDlpack
from tests.fake_cuda.driver import OUT_OF_MEMORY, Driver
from tests.fake_cuda.kernels import open_fake_cuda
from tests.samples import photo

ITERS = 3
SHAPES = [(16, 20), (24, 17), (16, 20)]


@pytest.fixture(scope="module")
def cpu(bundle: Bundle) -> Upscaler:
    return ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1)


def assert_equal(ours: Result, expected: Result) -> None:
    assert np.array_equal(ours.image, expected.image)
    assert np.array_equal(ours.codes, expected.codes)
    assert len(ours.steps) == len(expected.steps)
    for image, wanted in zip(ours.steps, expected.steps, strict=True):
        assert np.array_equal(image, wanted)


@pytest.mark.parametrize("cuda_graph", ["auto", "off"])
def test_it_equals_the_cpu_to_the_last_bit(
    bundle: Bundle, cpu: Upscaler, driver: Driver, cuda_graph: CudaGraphUse
) -> None:
    with Upscaler(bundle, open_fake_cuda(bundle, cuda_graph=cuda_graph), ITERS) as upscaler:
        for seed, (height, width) in enumerate(SHAPES * 2):
            frame = photo(height, width, seed)
            assert_equal(upscaler(frame), cpu(frame))
            assert_equal(upscaler(frame, steps=True), cpu(frame, steps=True))
            assert_equal(upscaler(frame, sigma=1.7), cpu(frame, sigma=1.7))
        batch = np.stack([photo(16, 20, seed) for seed in range(3)])
        assert_equal(upscaler(batch), cpu(batch))


def test_one_launch_replays_the_whole_loop(bundle: Bundle, cpu: Upscaler, driver: Driver) -> None:
    frames = [photo(16, 20, seed) for seed in range(4)]
    passes = 2 * (ITERS + 1)
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        upscaler(frames[0])
        # Run once, then recorded.
        assert driver.count("host functions") == 2 * passes
        for number, frame in enumerate(frames, 1):
            result = upscaler(frame)
            assert_equal(result, cpu(frame))
            assert driver.count("graph launches") == number
            # Timed inside the graph.
            stages = [result.timings[stage] for stage in ("predictor", "sftmd", "corrector")]
            assert min(stages) > 0
            assert sum(stages) <= result.timings["total"]
        assert driver.count("host functions") == 2 * passes


def test_what_cannot_be_recorded_runs_call_by_call(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    frame = photo(16, 20)
    with Upscaler(bundle, open_fake_cuda(bundle, capturable=False), ITERS) as upscaler:
        for _ in range(3):
            assert_equal(upscaler(frame), cpu(frame))
    assert driver.count("graph launches") == 0
    assert driver.made()["graphs made"] == 0


@pytest.mark.parametrize("cuda_graph", ["auto", "off"])
def test_nothing_is_allocated_after_the_first_frame(
    bundle: Bundle, driver: Driver, cuda_graph: CudaGraphUse
) -> None:
    with Upscaler(bundle, open_fake_cuda(bundle, cuda_graph=cuda_graph), ITERS) as upscaler:
        upscaler(photo(16, 20))
        made = driver.made()
        for seed in range(20):
            upscaler(photo(16, 20, seed))
        assert driver.made() == made
    assert driver.left() == {}


def test_closing_frees_everything(bundle: Bundle, driver: Driver) -> None:
    upscaler = Upscaler(bundle, open_fake_cuda(bundle), ITERS)
    for height, width in [(16, 20), (20, 16), (9, 9), (8, 30), (30, 8), (10, 10)]:
        upscaler(photo(height, width))
        upscaler(photo(height, width), sigma=1.5)
    assert driver.left() != {}
    upscaler.close()
    upscaler.close()
    assert driver.left() == {}
    assert driver.device_bytes == 0
    with pytest.raises(InputError, match="is closed"):
        upscaler(photo(16, 20))


def test_shapes_that_come_and_go_leave_nothing(bundle: Bundle, driver: Driver) -> None:
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        sizes = []
        for side in range(8, 20):
            upscaler(photo(side, 12))
            sizes.append(driver.device_bytes)
        # No more than the last four shapes are kept.
        kept = [driver.device_bytes]
        for side in range(16, 20):
            upscaler(photo(side, 12))
            kept.append(driver.device_bytes)
        assert set(kept) == {sizes[-1]}


REFUSED = [
    # A network in the middle of the first loop.
    ("cuLaunchHostFunc", 4),
    ("cuGraphLaunch", 0),
    ("cuGraphLaunch", 1),
    ("cuMemcpyHtoDAsync_v2", 1),
    ("cuMemcpyDtoHAsync_v2", 3),
    ("cuStreamSynchronize", 2),
    ("cuEventRecordWithFlags", 3),
    ("cuEventElapsedTime_v2", 5),
    ("cuMemAlloc_v2", 2),
    ("cuMemHostAlloc", 1),
    ("cuEventCreate", 1),
]


@pytest.mark.parametrize(("function", "after"), REFUSED)
def test_what_the_driver_refuses_is_raised_and_mended(
    bundle: Bundle, cpu: Upscaler, driver: Driver, function: str, after: int
) -> None:
    frame = photo(16, 20)
    upscaler = Upscaler(bundle, open_fake_cuda(bundle), ITERS)
    driver.fail(function, after)
    with pytest.raises(BackendError) as raised:
        for _ in range(3):
            upscaler(frame)
    assert "719" in str(raised.value) or "LAUNCH_FAILED" in str(raised.value)
    for seed in range(3):
        assert_equal(upscaler(photo(16, 20, seed)), cpu(photo(16, 20, seed)))
    upscaler.close()
    assert driver.left() == {}


REFUSED_CAPTURE = [
    ("cuLaunchHostFunc", 2 * (ITERS + 1) + 4),
    ("cuGraphInstantiateWithFlags", 0),
    ("cuGraphUpload", 0),
    ("cuStreamBeginCapture_v2", 0),
    ("cuStreamEndCapture", 0),
]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("function", "after"), REFUSED_CAPTURE)
def test_a_refused_capture_costs_no_frame(
    bundle: Bundle,
    cpu: Upscaler,
    driver: Driver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    after: int,
    times: int,
) -> None:
    captures = []

    def failing(stream: CudaStream, queue: Callable[[], None]) -> CudaGraph:
        captures.append(function)
        if len(captures) > 1 and times > 1:
            driver.fail(function, 4 if after else 0)
        return capture(stream, queue)

    monkeypatch.setattr(cuda_backend, "capture", failing)
    driver.fail(function, after)
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        for seed in range(4):
            assert_equal(upscaler(photo(16, 20, seed)), cpu(photo(16, 20, seed)))
        assert len(captures) == 2
        # Tried once more; then said once, and never tried again.
        assert len(caplog.records) == times - 1
        assert driver.count("graph launches") == (3 if times == 1 else 0)
    assert driver.left() == {}


@pytest.mark.parametrize("capturable", [True, False])
def test_recording_that_is_required_is_never_replaced(
    bundle: Bundle, cpu: Upscaler, driver: Driver, capturable: bool
) -> None:
    frame = photo(16, 20)
    backend = open_fake_cuda(bundle, capturable, cuda_graph="require")
    with Upscaler(bundle, backend, ITERS) as upscaler:
        if not capturable:
            with pytest.raises(BackendError, match=r"cannot record these networks.*'require'"):
                upscaler(frame)
        else:
            # Both attempts to record the first program.
            for _ in range(2):
                driver.fail("cuGraphInstantiateWithFlags")
            with pytest.raises(BackendError, match=r"instantiate a graph.*cuda_graph='auto'"):
                upscaler(frame)
            for number in range(3):
                assert_equal(upscaler(frame), cpu(frame))
                assert driver.count("graph launches") == number
    assert driver.left() == {}


@pytest.mark.parametrize("call", [{}, {"steps": True}, {"estimate": "crops"}], ids=str)
def test_an_early_stop_is_recorded_step_by_step(
    bundle: Bundle, driver: Driver, call: dict[str, Any]
) -> None:
    frame = photo(96, 100)
    with (
        ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1, early_stop=9e9) as cpu,
        Upscaler(bundle, open_fake_cuda(bundle), ITERS, early_stop=9e9) as upscaler,
    ):
        for _ in range(2):
            assert_equal(upscaler(frame, **call), cpu(frame, **call))
        launches, made = driver.count("graph launches"), driver.made()
        result = upscaler(frame, **call)
        assert_equal(result, cpu(frame, **call))
        assert result.corrections == 1
        # The predictor, one correction, and the image.
        if not call.get("steps"):
            assert driver.count("graph launches") - launches == 3
            assert driver.made() == made


def test_closing_after_a_failure_frees_everything(bundle: Bundle, driver: Driver) -> None:
    upscaler = Upscaler(bundle, open_fake_cuda(bundle), ITERS)
    driver.fail("cuLaunchHostFunc", 5)
    with pytest.raises(BackendError) as raised:
        upscaler(photo(16, 20))
    upscaler.close()
    # The exception still holds the frames in which the session lives.
    assert raised.tb is not None
    assert driver.left() == {}


def test_a_frame_too_large_says_so_and_smaller_ones_go_on(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        driver.limit(2**20)
        with pytest.raises(OutOfMemoryError, match=r"not enough GPU memory to allocate .* smaller"):
            upscaler(photo(200, 200))
        frame = photo(16, 20)
        assert_equal(upscaler(frame), cpu(frame))
        # pycuda collects garbage and tries again before it gives up.
        driver.fail("cuMemAlloc_v2", 0, OUT_OF_MEMORY)
        upscaler(photo(17, 20))
    assert driver.left() == {}


def test_parts_of_the_loop_are_programs_of_their_own(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    frame = photo(16, 20)
    wanted = cpu(frame)
    backend = open_fake_cuda(bundle)
    session = Session(backend, bundle, FrameShape(1, 16, 20), ITERS)
    for _ in range(3):
        session.upload(frame[None])
        # Nothing, the code by P, two corrections, and the image of the last of them.
        for program in (session.correct(0), session.predict(), session.correct(ITERS)):
            program.run()
        codes = [backend.download(code)[0] for code in session.codes]
        assert np.array_equal(codes, wanted.codes)
        backend.upload(codes[-1][None], session.codes[0])
        session.image(0).run()
        assert np.array_equal(backend.download(session.frame)[0], wanted.image)
    backend.close()
    assert driver.left() == {}


MODES: list[dict[str, Any]] = [
    {"estimate": "full"},
    {"estimate": "crops"},
    {"estimate": "track"},
    {"sigma": 1.7},
]

SMALL: Final = 4000
"""Bytes of the codes that go up and down with a frame of any size."""


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_frame_goes_up_once_and_its_image_down_once(
    bundle: Bundle, cpu: Upscaler, driver: Driver, mode: dict[str, Any], on_device: bool
) -> None:
    device = open_device()
    frame = photo(96, 100)
    given: Any = WithDlpack(device, frame, CudaStream(device)) if on_device else frame
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        for _ in range(3):
            upscaler(given, **mode)
        names = ("uploaded bytes", "downloaded bytes", "graph launches")
        before, made = [driver.count(name) for name in names], driver.made()
        result = upscaler(given, **mode)
        up, down, launches = (
            driver.count(name) - count for name, count in zip(names, before, strict=True)
        )
        assert {**driver.made(), "events made": 0} == {**made, "events made": 0}
        cuts = mode.get("estimate") in ("crops", "track")
        # Predictor, corrections on crops, and the SR network: a recorded graph each.
        assert launches == (3 if cuts else 1)
        if on_device:
            assert up < SMALL
            # Sums over blocks, by which texture and scenes are found.
            assert down < SMALL
            image = result.image.to_numpy()
        else:
            assert frame.nbytes <= up < frame.nbytes + SMALL
            assert result.image.nbytes <= down < result.image.nbytes + SMALL
            image = result.image
        if mode.get("estimate") == "track":
            # The sums of whole numbers are exact, so that the GPU finds the same crops.
            expected = list(cpu.stream([frame] * 4))[-1]
        else:
            expected = cpu(frame, **mode)
        assert np.array_equal(image, expected.image)
        assert np.array_equal(result.codes, expected.codes)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_tiles_are_cut_on_the_device(
    bundle: Bundle, cpu: Upscaler, driver: Driver, mode: dict[str, Any]
) -> None:
    device, frame = open_device(), photo(96, 150)
    on_device: Any = WithDlpack(device, frame, CudaStream(device))
    with ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1, tile=64) as tiled:
        expected = [tiled(frame, **mode) for _ in range(4)][-1]
    down = []
    for given in (frame, on_device):
        tiles = TileSettings(64)
        with Upscaler(bundle, open_fake_cuda(bundle), ITERS, tiles=tiles) as upscaler:
            for _ in range(3):
                upscaler(given, **mode)
            before, made = driver.count("downloaded bytes"), driver.made()
            up = driver.count("uploaded bytes")
            result = upscaler(given, **mode)
            assert np.array_equal(result.image, expected.image)
            assert np.array_equal(result.codes, expected.codes)
            down.append(driver.count("downloaded bytes") - before)
            limit = SMALL + (frame.nbytes if given is frame else 0)
            assert driver.count("uploaded bytes") - up < limit
            assert {**driver.made(), "events made": 0} == {**made, "events made": 0}
    # Beside the tiles of the image, sums over blocks of a frame that the host does not have.
    assert down[1] - down[0] < SMALL


def test_free_memory_is_consulted_before_a_frame_is_tried(bundle: Bundle, driver: Driver) -> None:
    frame = photo(200, 200)
    driver.limit(driver.device_bytes + 8 * 2**20)
    with (
        warnings.catch_warnings(),
        Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler,
        ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1, tile=112) as tiled,
    ):
        warnings.simplefilter("error")
        assert np.array_equal(upscaler(frame, sigma=1.7).image, tiled(frame, sigma=1.7).image)


def test_unused_memory_of_results_is_freed_before_an_allocation_fails(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    device = open_device()
    frame = WithDlpack(device, photo(16, 20), CudaStream(device))
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        upscaler(frame)
        gc.collect()
        # Room for the codes of another shape, not for its images.
        driver.limit(driver.device_bytes + 2000)
        assert np.array_equal(upscaler(photo(8, 8)).image, cpu(photo(8, 8)).image)
    assert driver.device_bytes == frame.buffer.nbytes


def test_a_forked_process_is_told_so(bundle: Bundle, driver: Driver) -> None:
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        upscaler(photo(16, 20))
        child = os.fork()
        if child == 0:
            try:
                upscaler(photo(16, 20))
            except BackendError as error:
                os._exit(0 if "forked after it was loaded" in str(error) else 2)
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        upscaler(photo(16, 20))
    assert driver.left() == {}
