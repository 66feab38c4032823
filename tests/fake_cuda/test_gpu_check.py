"""A rehearsal of `make gpu-check`: its script with tiny networks, on the fake driver."""

from __future__ import annotations

import ctypes
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.networks.weights_loader import load_weights
from ikc_deploy.runtime.cuda.arrays import DeviceArray
from ikc_deploy.runtime.cuda.buffers import DeviceBuffer
from ikc_deploy.runtime.cuda.device import open_device
from ikc_deploy.runtime.cuda.streams import CudaStream
from tests.bundles import save_small
from tests.fake_cuda.arrays import LateReader, Unnamed, WithDlpack
from tests.fake_cuda.driver import Driver
from tests.fake_cuda.kernels import Kernel
from tools.gpu_check.checks import Check, GpuCheckSettings
from tools.gpu_check.parts import PartOutcome, run_parts


class OnFakeCuda:
    """torch on the CPU, called by the streams of the fake driver, in its device memory."""

    device = "cpu"
    rehearsal = True

    def tensor(self, buffer: DeviceBuffer) -> torch.Tensor:
        memory = (ctypes.c_char * buffer.nbytes).from_address(buffer.address)
        return torch.from_numpy(
            np.frombuffer(memoryview(memory), buffer.dtype).reshape(buffer.shape)
        )

    def pool(self) -> None:
        """There is no need of one."""

    def queue(self, work: Callable[[], None], stream: CudaStream, pool: Any) -> Callable[[], None]:
        kernel = Kernel(work, stream.device)
        return lambda: kernel.launch(stream.handle)

    def frame(self, frame: NDArray[np.uint8]) -> object:
        device = open_device()
        return WithDlpack(device, frame, CudaStream(device))

    def unnamed(self, frame: NDArray[np.uint8]) -> object:
        return Unnamed(open_device(), frame)

    def read_late(self, image: DeviceArray) -> Callable[[], NDArray[np.uint8]]:
        return LateReader(image)

    def image(self, image: DeviceArray) -> NDArray[np.uint8]:
        return image.to_numpy()

    def milliseconds(self, work: Callable[[], object], count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            work()
        return 1e3 * (time.perf_counter() - started) / count

    def synchronize(self) -> None:
        """Nothing is queued."""


SETTINGS = GpuCheckSettings(
    iters=1,
    shapes=((8, 9), (10, 8)),
    frames=5,
    latency_shapes=((8, 8),),
    latency_runs=2,
    compile=False,
)


@pytest.fixture
def check(bundle: Bundle, tmp_path: Path) -> Check:
    torch.set_num_threads(1)
    weights = load_weights(str(save_small(tmp_path)))
    # Exporting is tested elsewhere, and takes long; the graphs of the same networks are there.
    for precision in ("fp32", "fp16"):
        shutil.copytree(bundle.path, tmp_path / precision)
    return Check(weights, SETTINGS, OnFakeCuda(), tmp_path)


def by_name(outcomes: list[PartOutcome]) -> dict[str, PartOutcome]:
    return {outcome.part: outcome for outcome in outcomes}


def test_every_part_passes_or_says_why_it_did_not_run(check: Check, driver: Driver) -> None:
    outcomes = by_name(run_parts(check.parts(), 600, lambda _: None))
    failed = {
        name: outcome.reason for name, outcome in outcomes.items() if outcome.status == "failed"
    }
    assert failed == {}
    for name, outcome in outcomes.items():
        if name.startswith(("buffers", "streams", "graph of", "torch, ", "latency: torch, ")):
            assert outcome.status == "passed", outcome
            assert outcome.facts
        if "tensorrt" in name or "ONNX Runtime" in name or "onnxruntime" in name:
            assert outcome.status == "not run", outcome
            assert outcome.reason


def test_what_is_wrong_fails_by_name(
    check: Check, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = check.parts()
    driver.fail("cuMemcpyDtoDAsync_v2")
    first = parts["buffers"]
    (broken,) = run_parts({"buffers": first}, 60, lambda _: None)
    assert broken.status == "failed"
    assert "copy a frame on the GPU" in broken.reason
    name = "torch, fp32: against torch on the CPU"
    original = Check._reference
    spoiled = lambda self, frame: original(self, 255 - frame)  # noqa: E731
    monkeypatch.setattr(Check, "_reference", spoiled)
    (wrong,) = run_parts({name: parts[name]}, 60, lambda _: None)
    assert wrong.status == "failed"
    assert "dB is below 60" in wrong.reason


def test_what_would_begin_too_late_does_not_run() -> None:
    (late,) = run_parts({"part": dict}, -1.0, lambda _: None)
    assert (late.status, late.facts) == ("not run", {})
