from __future__ import annotations

import ctypes
import gc
import threading
import time
from typing import Any

import numpy as np
import pytest
from cuda.core.utils import StridedMemoryView

import ikc_deploy
from ikc_deploy import Bundle, InputError, Upscaler
from ikc_deploy.runtime.cuda.arrays import DeviceArray
from ikc_deploy.runtime.cuda.device import open_device
from ikc_deploy.runtime.cuda.streams import CudaStream
from ikc_deploy.runtime.tiling import TileSettings
from tests.fake_cuda.arrays import Foreign, WithDlpack, WithInterface
from tests.fake_cuda.driver import Driver
from tests.fake_cuda.kernels import Kernel, open_fake_cuda
from tests.samples import photo

ITERS = 1


@pytest.fixture(scope="module")
def cpu(bundle: Bundle) -> Upscaler:
    return ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1)


@pytest.mark.parametrize("kind", [WithInterface, WithDlpack])
def test_frames_of_other_libraries_stay_on_the_gpu(
    bundle: Bundle, cpu: Upscaler, driver: Driver, kind: type[Foreign]
) -> None:
    frame = photo(16, 20)
    expected = cpu(frame, steps=True)
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        device = open_device()
        stream = CudaStream(device)
        # The frame is still being made when it is handed over.
        delay = Kernel(lambda: time.sleep(0.2), device)
        result = upscaler(kind(device, frame, stream, delay), steps=True)
        assert isinstance(result.image, DeviceArray)
        assert result.image.shape == expected.image.shape
        assert result.image.dtype == np.uint8
        assert np.array_equal(result.image.to_numpy(), expected.image)
        assert isinstance(result.codes, np.ndarray)
        assert np.array_equal(result.codes, expected.codes)
        for ours, step in zip(result.steps, expected.steps, strict=True):
            assert np.array_equal(ours.to_numpy(), step)
        batch = np.stack([photo(16, 20, 1), photo(16, 20, 2)])
        many = upscaler(kind(device, batch, stream, delay)).image
        assert np.array_equal(many.to_numpy(), cpu(batch).image)
        assert np.array_equal(many[-1].to_numpy(), cpu(batch).image[-1])


def test_self_ensemble_refuses_frames_on_the_gpu_and_takes_those_of_the_host(
    bundle: Bundle, driver: Driver
) -> None:
    frame = photo(16, 20)
    with (
        ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1, self_ensemble=True) as cpu,
        Upscaler(bundle, open_fake_cuda(bundle), ITERS, self_ensemble=True) as upscaler,
    ):
        assert np.array_equal(upscaler(frame).image, cpu(frame).image)
        device = open_device()
        stream = CudaStream(device)
        on_gpu = WithDlpack(device, frame, stream, Kernel(lambda: None, device))
        with pytest.raises(InputError, match="takes frames in host memory"):
            upscaler(on_gpu)
        # Its memory may not be freed before it is written.
        stream.synchronize()


def test_crops_and_tiles_of_frames_on_the_gpu(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    frame = photo(96, 100)
    device = open_device()
    foreign = WithDlpack(device, frame, CudaStream(device))
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        for way in ("crops", "track", "track"):
            expected = cpu(frame, estimate=way)
            result = upscaler(foreign, estimate=way)
            assert isinstance(result.image, DeviceArray)
            assert np.array_equal(result.codes, expected.codes)
            assert np.array_equal(result.image.to_numpy(), expected.image)
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS, tiles=TileSettings(64)) as upscaler:
        tiled = upscaler(foreign, sigma=1.0)
        assert isinstance(tiled.image, np.ndarray)
        expected_image = cpu(frame, sigma=1.0).image
        assert np.abs(tiled.image.astype(int) - expected_image).max() <= 1


def test_results_are_frames(bundle: Bundle, cpu: Upscaler, driver: Driver) -> None:
    frame = photo(8, 9)
    expected = cpu(cpu(frame).image).image
    device = open_device()
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        once = upscaler(WithDlpack(device, frame, CudaStream(device))).image
        assert np.array_equal(upscaler(once).image.to_numpy(), expected)


def test_other_libraries_read_results_in_place(bundle: Bundle, driver: Driver) -> None:
    device = open_device()
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        image = upscaler(WithDlpack(device, photo(16, 20), CudaStream(device))).image
        assert image.__dlpack_device__() == (2, 0)
        for view in (
            StridedMemoryView.from_dlpack(image, stream_ptr=-1),
            StridedMemoryView.from_cuda_array_interface(image, stream_ptr=-1),
        ):
            assert view.ptr == image.address
            assert tuple(view.shape) == image.shape
            assert view.dtype == np.uint8
            assert view.is_device_accessible


def test_results_are_complete_when_they_are_handed_out(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    frame = photo(16, 20)
    device = open_device()
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        foreign = WithDlpack(device, frame, CudaStream(device))
        # Its memory comes back with another image in it.
        upscaler(WithDlpack(device, 255 - frame, CudaStream(device)))
        driver.lag(50)
        image = upscaler(foreign).image
        # Nobody waits for anything here.
        memory = (ctypes.c_uint8 * image.nbytes).from_address(image.address)
        found = np.frombuffer(memory, np.uint8).reshape(image.shape)
        assert np.array_equal(found, cpu(frame).image)


def test_results_are_the_callers_own_and_outlive_the_upscaler(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    frame = photo(16, 20)
    device = open_device()
    stream = CudaStream(device)
    upscaler = Upscaler(bundle, open_fake_cuda(bundle), ITERS)
    first = upscaler(WithDlpack(device, frame, stream)).image
    upscaler(WithDlpack(device, 255 - frame, stream))
    upscaler.close()
    assert np.array_equal(first.to_numpy(), cpu(frame).image)
    del stream
    gc.collect()
    # Nothing else is left; and it can be dropped in any thread.
    assert driver.left() == {"device allocations": 1}
    box = [first]
    del first
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert driver.left() == {}


def test_frames_on_the_gpu_allocate_nothing_in_the_long_run(bundle: Bundle, driver: Driver) -> None:
    device = open_device()
    stream = CudaStream(device)
    frame = WithInterface(device, photo(16, 20), stream)
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        upscaler(frame)
        upscaler(frame)
        before = driver.count("device allocations"), driver.count("pinned allocations")
        for _ in range(10):
            upscaler(frame)
        after = driver.count("device allocations"), driver.count("pinned allocations")
    assert after == before


class OnTheHost:
    """A host array of another library: DLPack and nothing else."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> object:
        return self._array.__dlpack__(**options)


def test_host_arrays_of_other_libraries_give_numpy(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    frame = photo(16, 20)
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        for one in (upscaler, cpu):
            image = one(OnTheHost(frame)).image
            assert isinstance(image, np.ndarray)
            assert np.array_equal(image, cpu(frame).image)


def test_what_cannot_be_used_in_place_is_refused(
    bundle: Bundle, cpu: Upscaler, driver: Driver
) -> None:
    device = open_device()
    stream = CudaStream(device)
    frame = WithInterface(device, photo(16, 20), stream)
    with pytest.raises(InputError, match="reads host memory; copy the frame to numpy"):
        cpu(frame)
    with Upscaler(bundle, open_fake_cuda(bundle), ITERS) as upscaler:
        with pytest.raises(InputError, match="takes uint8 frames, got float32"):
            upscaler(WithInterface(device, photo(16, 20).astype(np.float32), stream))
        with pytest.raises(InputError, match="move the channels last"):
            upscaler(WithInterface(device, np.zeros((3, 16, 20), np.uint8), stream))
        frame.strides = (3, 48, 1)
        with pytest.raises(InputError, match="must be C-contiguous"):
            upscaler(frame)
        with pytest.raises(InputError, match="or one with DLPack"):
            upscaler("frame")
