from __future__ import annotations

import numpy as np
import pytest

import ikc_deploy
from ikc_deploy import Bundle, Upscaler
from ikc_deploy.runtime.backends.base import CudaGraphUse
from tests.bundles import export_small
from tests.fake_cuda.driver import Driver
from tests.fake_cuda.kernels import open_fake_cuda
from tests.samples import photo


@pytest.fixture(scope="module")
def dan(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose loop starts at a constant code and has no start graph."""
    return export_small(tmp_path_factory.mktemp("dan"), "dan2", 3)


@pytest.mark.parametrize("cuda_graph", ["auto", "off"])
def test_a_loop_from_a_constant_code_equals_the_cpu(
    dan: Bundle, driver: Driver, cuda_graph: CudaGraphUse
) -> None:
    with (
        ikc_deploy.load(dan, "onnxruntime", 2, threads=1) as cpu,
        Upscaler(dan, open_fake_cuda(dan, cuda_graph=cuda_graph), 2) as upscaler,
    ):
        for seed in range(3):
            frame = photo(16, 20, seed)
            for arguments in ({}, {"sigma": 1.1}, {"steps": True}, {}):
                ours, expected = upscaler(frame, **arguments), cpu(frame, **arguments)
                assert np.array_equal(ours.image, expected.image)
                assert np.array_equal(ours.codes, expected.codes)
    assert driver.left() == {}
