"""The peak throughput of this machine: a large matrix product and a large copy, by each library.

The share of the peak throughput shows how much can still be gained without fewer operations or
fewer bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ikc_deploy.errors import MissingExtraError

_SIDE: Final = 2048
_COPIED: Final = 32 << 20
"""Number of float32 values of a copy: 128 MiB, more than most caches hold."""
_TRIES: Final = 7


@dataclass(frozen=True)
class PeakThroughput:
    """The peak throughput of one library: the fastest of several tries."""

    gflops: float
    """Rate of a product of two 2048x2048 float32 matrices, in 10^9 FLOP a second."""
    gigabytes: float
    """Rate of reading and writing in a copy of 128 MiB, in 10^9 bytes a second."""


def measure_peak_throughput(threads: int = 0) -> dict[str, PeakThroughput]:
    """Measure the peak throughput of each installed library: "onnxruntime", "torch"."""
    found: dict[str, PeakThroughput] = {}
    for name, work in (("onnxruntime", _onnxruntime), ("torch", _torch)):
        try:
            multiply, copy = work(threads)
        except (ModuleNotFoundError, MissingExtraError):
            continue
        found[name] = PeakThroughput(
            gflops=2 * _SIDE**3 / _fastest(multiply) / 1e9,
            gigabytes=2 * 4 * _COPIED / _fastest(copy) / 1e9,
        )
    return found


def highest(peaks: dict[str, PeakThroughput]) -> float | None:
    """Return the highest GFLOP/s of all libraries; None without any."""
    return max((peak.gflops for peak in peaks.values()), default=None)


def _fastest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def _onnxruntime(threads: int) -> tuple[Callable[[], object], Callable[[], object]]:
    import onnxruntime
    from onnx import parser

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def bound(text: str, **arrays: np.ndarray) -> Callable[[], object]:
        header = '<ir_version: 8, opset_import: ["" : 18]> '
        model = parser.parse_model(header + text).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        binding = session.io_binding()
        for name, array in arrays.items():
            bind = binding.bind_output if name == "y" else binding.bind_input
            bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

        def call() -> Any:
            # The arrays are referenced here: a binding has only their addresses.
            return arrays, session.run_with_iobinding(binding)

        return call

    a, b, y = (np.ones((_SIDE, _SIDE), np.float32) for _ in range(3))
    product = "g (float[N,N] a, float[N,N] b) => (float[N,N] y) { y = MatMul(a, b) }"
    source, target = np.ones(_COPIED, np.float32), np.zeros(_COPIED, np.float32)
    # The operation nearest to a copy that ONNX Runtime runs on all cores: one read, one write.
    copy = "g (float[N] a) => (float[N] y) { y = Relu(a) }"
    return bound(product, a=a, b=b, y=y), bound(copy, a=source, y=target)


def _torch(threads: int) -> tuple[Callable[[], object], Callable[[], object]]:
    import torch

    torch.set_num_threads(threads or torch.get_num_threads())
    a, b, y = (torch.ones(_SIDE, _SIDE) for _ in range(3))
    source, target = torch.ones(_COPIED), torch.zeros(_COPIED)
    return lambda: torch.mm(a, b, out=y), lambda: target.copy_(source)
