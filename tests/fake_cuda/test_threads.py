from __future__ import annotations

import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ikc_deploy
from ikc_deploy import BackendError, Bundle, InputError, Upscaler
from ikc_deploy.runtime.cuda.buffers import DeviceBuffer
from ikc_deploy.runtime.cuda.cuda_graphs import capture
from ikc_deploy.runtime.cuda.device import open_device
from ikc_deploy.runtime.cuda.streams import CudaStream
from ikc_deploy.runtime.worker_pool import FRAMES_PER_STREAM
from tests.fake_cuda.arrays import WithDlpack
from tests.fake_cuda.driver import Driver
from tests.fake_cuda.kernels import Kernel, open_fake_cuda
from tests.samples import photo

ITERS = 2


@pytest.fixture(scope="module")
def cpu(bundle: Bundle) -> Upscaler:
    return ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1)


def test_threads_with_an_upscaler_each(bundle: Bundle, cpu: Upscaler, driver: Driver) -> None:
    frames = [photo(16, 16 + seed % 2, seed) for seed in range(8)]
    expected = [cpu(frame).image for frame in frames]

    def work(_: int) -> list[bool]:
        # Opened, used, recorded and closed beside the others.
        with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
            images = [upscaler(frame).image for frame in frames]
        return [np.array_equal(a, b) for a, b in zip(images, expected, strict=True)]

    with ThreadPoolExecutor(4) as threads:
        assert all(all(equal) for equal in threads.map(work, range(4)))
    assert driver.left() == {}


def test_the_context_of_another_library_stays_current(bundle: Bundle, driver: Driver) -> None:
    theirs, now = ctypes.c_void_p(0x1234), ctypes.c_void_p()
    driver.library.cuCtxPushCurrent_v2(theirs)
    try:
        with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
            for _ in range(2):
                upscaler(photo(16, 20))
                upscaler.submit(photo(16, 20)).result(60)
                driver.library.cuCtxGetCurrent(ctypes.byref(now))
                assert now.value == theirs.value
            driver.fail("cuGraphLaunch")
            with pytest.raises(BackendError):
                upscaler(photo(16, 20))
        driver.library.cuCtxGetCurrent(ctypes.byref(now))
        assert now.value == theirs.value
    finally:
        driver.library.cuCtxPopCurrent_v2(None)
    assert driver.left() == {}


def test_other_threads_may_allocate_while_one_records(driver: Driver) -> None:
    device = open_device()
    stream = CudaStream(device)

    def allocate() -> None:
        DeviceBuffer(device, (8,), np.uint8)

    def beside() -> None:
        thread = threading.Thread(target=allocate)
        thread.start()
        thread.join()

    capture(stream, beside).launch()
    # Its own thread may not; the stream is usable afterwards.
    with pytest.raises(BackendError, match="allocate 8 bytes"):
        capture(stream, allocate)
    capture(stream, beside).launch()
    stream.synchronize()


def test_an_upscaler_may_be_closed_by_another_thread(bundle: Bundle, driver: Driver) -> None:
    with ThreadPoolExecutor(1) as thread:
        upscaler = thread.submit(Upscaler, bundle, open_fake_cuda(bundle), ITERS).result()
        thread.submit(upscaler, photo(16, 20)).result()
    upscaler.close()
    assert driver.left() == {}


def test_submitted_frames_come_in_order(bundle: Bundle, cpu: Upscaler, driver: Driver) -> None:
    frames = [photo(16, 16 + seed % 3, seed) for seed in range(9)]
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS, streams=2) as upscaler:
        # The same array every time: what was submitted is a copy.
        tickets = []
        for frame in frames:
            reused = frame.copy()
            tickets.append(upscaler.submit(reused))
            reused[...] = 0
        for ticket, frame in zip(tickets, frames, strict=True):
            result, expected = ticket.result(timeout=60), cpu(frame)
            assert np.array_equal(result.image, expected.image)
            assert np.array_equal(result.codes, expected.codes)
            assert ticket.done()
        known = upscaler.submit(frames[0], sigma=1.6, steps=True).result(60)
        assert np.array_equal(known.steps[0], cpu(frames[0], sigma=1.6).image)
    assert driver.left() == {}


def test_submitted_frames_allocate_nothing_in_the_long_run(bundle: Bundle, driver: Driver) -> None:
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS, streams=2) as upscaler:
        for seed in range(2):
            upscaler.submit(photo(16, 20, seed)).result(60)
        made = driver.made()
        for seed in range(8):
            upscaler.submit(photo(16, 20, seed)).result(60)
        assert driver.made() == made


def test_streams_work_at_once(bundle: Bundle, driver: Driver) -> None:
    device = open_device()
    stream = CudaStream(device)
    go = threading.Event()
    held = Kernel(lambda: go.wait(60), device)
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS, streams=2) as upscaler:
        first = upscaler.submit(WithDlpack(device, photo(16, 20), stream, held))
        # The first waits for another library's work on the GPU, and the second passes it.
        second = upscaler.submit(photo(16, 20, 1))
        second.result(60)
        assert not first.done()
        with pytest.raises(TimeoutError):
            first.result(0.01)
        go.set()
        first.result(60)


def test_submit_waits_while_too_much_is_under_way(bundle: Bundle, driver: Driver) -> None:
    device = open_device()
    stream = CudaStream(device)
    go = threading.Event()
    held = Kernel(lambda: go.wait(60), device)
    frame = WithDlpack(device, photo(16, 20), stream, held)
    submitted: list[int] = []
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS, streams=1) as upscaler:

        def feed() -> None:
            for number in range(FRAMES_PER_STREAM + 1):
                upscaler.submit(frame)
                submitted.append(number)

        feeder = threading.Thread(target=feed)
        feeder.start()
        deadline = time.monotonic() + 60
        while len(submitted) < FRAMES_PER_STREAM and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(submitted) == FRAMES_PER_STREAM
        go.set()
        feeder.join(60)
        assert len(submitted) == FRAMES_PER_STREAM + 1


def test_tickets_carry_errors_and_later_frames_go_on(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    frame = photo(16, 20)
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS, streams=1) as upscaler:
        upscaler.submit(frame).result(60)
        driver.fail("cuGraphLaunch")
        failed, bad, good = (upscaler.submit(f) for f in (frame, frame[:4], frame))
        with pytest.raises(BackendError, match="launch a graph"):
            failed.result(60)
        with pytest.raises(InputError, match="at least 8 pixels"):
            bad.result(60)
        assert np.array_equal(good.result(60).image, cpu(frame).image)
    assert driver.left() == {}


def test_closing_cancels_what_has_not_begun(bundle: Bundle, driver: Driver) -> None:
    device = open_device()
    stream = CudaStream(device)
    go = threading.Event()
    held = Kernel(lambda: go.wait(60), device)
    upscaler = Upscaler(bundle, open_fake_cuda(bundle), ITERS, streams=1)
    under_way = upscaler.submit(WithDlpack(device, photo(16, 20), stream, held))
    waiting = upscaler.submit(photo(16, 20))
    threading.Timer(0.2, go.set).start()
    upscaler.close()
    assert under_way.result(60).image.shape == (64, 80, 3)
    with pytest.raises(InputError, match="closed before this frame was upscaled"):
        waiting.result(60)
    with pytest.raises(InputError, match="is closed"):
        upscaler.submit(photo(16, 20))


def test_the_cpu_takes_tickets_too(cpu: Upscaler) -> None:
    frames = [photo(16, 16, seed) for seed in range(4)]
    tickets = [cpu.submit(frame) for frame in frames]
    for ticket, frame in zip(tickets, frames, strict=True):
        assert np.array_equal(ticket.result(60).image, cpu(frame).image)


def test_two_gpus_take_submitted_frames_in_turn(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    frames = [photo(16, 20, seed) for seed in range(8)]
    first, second = (open_fake_cuda(bundle, ordinal=ordinal) for ordinal in (0, 1))
    with Upscaler(bundle, first, ITERS, streams=1, others=[second]) as upscaler:
        for futures in (upscaler.submit(frames[0]), upscaler.submit(frames[1])):
            futures.result(60)
        launches, made = driver.count("graph launches"), driver.made()
        assert driver.count("allocations on the second device") > 0
        results = [future.result(60) for future in [upscaler.submit(frame) for frame in frames]]
        assert driver.made() == made
        assert driver.count("graph launches") == launches + len(frames)
        for result, frame in zip(results, frames, strict=True):
            assert np.array_equal(result.image, cpu(frame).image)
        streamed = upscaler.stream(frames, estimate="crops")
        for result, frame in zip(streamed, frames, strict=True):
            assert np.array_equal(result.image, cpu(frame, estimate="crops").image)
    assert driver.left() == {}


def test_a_frame_is_for_the_gpu_that_holds_it(bundle: Bundle, driver: Driver) -> None:
    frame = WithDlpack(open_device(), photo(16, 20), CudaStream(open_device()))
    with (
        Upscaler(bundle, open_fake_cuda(bundle, ordinal=1), ITERS) as upscaler,
        pytest.raises(InputError, match="in GPU 0, and this Upscaler runs on GPU 1"),
    ):
        upscaler(frame)


def test_a_device_that_is_not_there_is_named(bundle: Bundle, driver: Driver) -> None:
    with pytest.raises(BackendError, match="there are 2 GPUs, numbered from 0, and none is 7"):
        open_device(7)
