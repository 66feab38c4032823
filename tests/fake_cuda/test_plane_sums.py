"""What the GPU computes of a frame's plane, against numpy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ikc_deploy import BackendError, Bundle
from ikc_deploy.bundle.manifest import FrameIO
from ikc_deploy.runtime.backends.cuda_backend import CudaBackend
from ikc_deploy.runtime.frame_plane import HostPlane
from ikc_deploy.runtime.frames import LAYOUTS, FrameBatch
from tests.fake_cuda.build import CUDA_SOURCE
from tests.fake_cuda.driver import Driver
from tests.fake_cuda.kernels import open_fake_cuda

QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def backend(bundle: Bundle, driver: Driver) -> Iterator[CudaBackend]:
    backend = open_fake_cuda(bundle)
    yield backend
    backend.close()
    assert driver.left() == {}


def batch(io: FrameIO, count: int, height: int, width: int, seed: int) -> NDArray[np.generic]:
    random = np.random.default_rng(seed)
    levels = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    if io == "uint8":
        return levels
    return np.ascontiguousarray(np.moveaxis(levels, -1, 1) / np.float32(255))


@QUIET
@given(
    st.sampled_from(("uint8", "float")),
    st.integers(1, 3),
    st.integers(8, 90),
    st.integers(8, 90),
    st.sampled_from((4, 8, 16)),
)
def test_sums_on_the_device_equal_those_on_the_host(
    backend: CudaBackend, io: FrameIO, count: int, height: int, width: int, block: int
) -> None:
    frames = batch(io, count, height, width, seed=height)
    buffer = backend.allocate(frames.shape, frames.dtype)
    backend.upload(frames, buffer)
    taken = FrameBatch(frames, io, single=False)
    for number in range(count):
        host, index = HostPlane(LAYOUTS[io].green(frames[number])), taken.green_index(number)
        texture = backend.texture(buffer, index, block), host.texture(block)
        means = backend.means(buffer, index, 5, 7), host.means(5, 7)
        for ours, expected in (texture, means):
            assert ours.dtype == expected.dtype == np.float32
            if io == "uint8":
                assert np.array_equal(ours, expected)
            else:
                np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_memory_is_kept_for_the_sizes_in_use(backend: CudaBackend, driver: Driver) -> None:
    sizes = [(64, 64), (96, 64), (64, 96), (96, 96)]
    buffers = [backend.allocate((1, *size, 3), np.uint8) for size in sizes]
    made = None
    for _ in range(3):
        for buffer, (height, width) in zip(buffers, sizes, strict=True):
            frame = np.zeros((1, height, width, 3), np.uint8)
            index = FrameBatch(frame, "uint8", True)
            backend.upload(frame, buffer)
            backend.texture(buffer, index.green_index(0), 8)
            backend.means(buffer, index.green_index(0), 4, 6)
        made = made or driver.made()
    assert driver.made() == made
    for side in range(20, 60, 2):
        backend.means(buffers[-1], index.green_index(0), side, side)
    # Of other sizes, memory is freed in turn.
    assert driver.left()["device allocations"] <= len(buffers) + 8


@pytest.mark.parametrize("function", ["cuLaunchKernel", "cuMemsetD8Async"])
def test_a_refused_kernel_is_an_error_of_the_backend(
    backend: CudaBackend, driver: Driver, function: str
) -> None:
    taken = FrameBatch(np.zeros((1, 16, 16, 3), np.uint8), "uint8", True)
    buffer = backend.allocate(taken.array.shape, np.uint8)
    driver.fail(function)
    with pytest.raises(BackendError, match="CUDA refuses to"):
        backend.texture(buffer, taken.green_index(0), 8)
    backend.texture(buffer, taken.green_index(0), 8)


def test_the_ptx_is_that_of_the_source() -> None:
    """If not: python -m tools.compile_kernels."""
    from tools.compile_kernels import header

    ptx = Path(CUDA_SOURCE).with_suffix(".ptx").read_text()
    assert ptx.splitlines()[0] == header(CUDA_SOURCE)
    assert set(re.findall(r"\.entry (\w+)\(", ptx)) == {"sum_levels", "sum_steps"}
