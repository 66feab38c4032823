"""A runner by torch: the modules behind the graphs, on the CUDA runtime's buffers and streams.

Not for production: it shows that buffers, streams, graphs and threads are correct on a machine
without TensorRT, and how much device-resident buffers and one graph launch gain by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.bundle.manifest import Precision
from ikc_deploy.export.graphs import graph_modules
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.runtime.backends.base import Binding
from ikc_deploy.runtime.backends.cuda_backend import StreamBoundGraph, device_buffer
from ikc_deploy.runtime.cuda.arrays import DeviceArray
from ikc_deploy.runtime.cuda.buffers import DeviceBuffer
from ikc_deploy.runtime.cuda.streams import CudaStream

_CYCLES: Final = 100_000_000
"""Length of the work that delays a kernel, in GPU clock cycles: some 50 ms."""


class Place(Protocol):
    """The device on which torch computes: a GPU or, in a rehearsal, the tests' fake driver."""

    device: str
    """Name of torch's device."""
    rehearsal: bool
    """Whether this is a rehearsal, in which times are meaningless."""

    def tensor(self, buffer: DeviceBuffer) -> Tensor:
        """Return a tensor that shares the buffer's memory."""

    def pool(self) -> Any:
        """Create a memory pool for the temporaries of one stream, which nothing else uses.

        A recorded graph keeps using the memory that was allocated when it was recorded.
        """

    def queue(self, work: Callable[[], None], stream: CudaStream, pool: Any) -> Callable[[], None]:
        """Return a function that queues `work` on `stream`, with temporaries from `pool`."""

    def frame(self, frame: NDArray[np.uint8]) -> object:
        """Return a frame in device memory of another library; its copy may be in progress."""

    def unnamed(self, frame: NDArray[np.uint8]) -> object:
        """Return a frame that is still being written, in an array that names no stream."""

    def image(self, image: DeviceArray) -> NDArray[np.uint8]:
        """Return the content of our array as another library reads it."""

    def read_late(self, image: DeviceArray) -> Callable[[], NDArray[np.uint8]]:
        """Queue a read of our array after other work, and return a function that waits for it."""

    def milliseconds(self, work: Callable[[], object], count: int) -> float:
        """Return the time of one of `count` runs of `work`, queued without waiting in between."""

    def synchronize(self) -> None:
        """Wait for all of torch's work."""


class OnTheGpu:
    """A GPU: torch's own CUDA kernels on the runtime's stream."""

    device = "cuda"
    rehearsal = False

    def tensor(self, buffer: DeviceBuffer) -> Tensor:
        """Return a tensor that shares the buffer's memory, by `__cuda_array_interface__`."""
        tensor: Tensor = torch.as_tensor(_Interface(buffer), device="cuda")
        return tensor

    def pool(self) -> Any:
        """Create a memory pool of torch for the temporaries of one stream."""
        return torch.cuda.MemPool()

    def queue(self, work: Callable[[], None], stream: CudaStream, pool: Any) -> Callable[[], None]:
        """Return a function that runs `work` with `stream` as torch's current stream."""
        external = torch.cuda.ExternalStream(stream.handle)  # type: ignore[no-untyped-call]

        def enqueue() -> None:
            with ExitStack() as stack:
                stack.enter_context(torch.cuda.stream(external))
                stack.enter_context(torch.cuda.use_mem_pool(pool))
                work()

        return enqueue

    def frame(self, frame: NDArray[np.uint8]) -> object:
        """Return a tensor whose copy and two negations are only queued."""
        return 255 - (255 - torch.from_numpy(frame).pin_memory().to("cuda", non_blocking=True))

    def image(self, image: DeviceArray) -> NDArray[np.uint8]:
        """Return the content of our array as torch reads it, by DLPack."""
        return np.asarray(torch.utils.dlpack.from_dlpack(image).cpu().numpy())

    def unnamed(self, frame: NDArray[np.uint8]) -> object:
        """Return a tensor that is still being written, in an array that names no stream."""
        source = torch.from_numpy(frame).pin_memory()
        target = torch.zeros(frame.shape, dtype=torch.uint8, device="cuda")
        torch.cuda._sleep(_CYCLES)  # type: ignore[no-untyped-call]
        target.copy_(source, non_blocking=True)
        return _Unnamed(target)

    def read_late(self, image: DeviceArray) -> Callable[[], NDArray[np.uint8]]:
        """Queue a copy of our array behind another kernel, and return a function that waits."""
        torch.cuda._sleep(_CYCLES)  # type: ignore[no-untyped-call]
        copy = torch.utils.dlpack.from_dlpack(image).clone()
        return lambda: np.asarray(copy.cpu().numpy())

    def milliseconds(self, work: Callable[[], object], count: int) -> float:
        """Return the time of one of `count` runs of `work`, measured by CUDA events."""
        start, end = (torch.cuda.Event(True) for _ in range(2))  # type: ignore[no-untyped-call]
        self.synchronize()
        start.record()
        for _ in range(count):
            work()
        end.record()
        self.synchronize()
        return float(start.elapsed_time(end)) / count

    def synchronize(self) -> None:
        """Wait for the GPU."""
        torch.cuda.synchronize()


class TorchGraphRunner:
    """The runner "torch".

    Args:
        networks: Networks on the CPU; they stay unchanged.
        precision: Precision of the convolutions.
        place: Device on which torch computes.
    """

    name = "torch"

    def __init__(self, networks: LoopNetworks, precision: Precision, place: Place) -> None:
        self._place = place
        modules = graph_modules(networks, precision, "uint8")
        self._modules = {name: module.to(place.device) for name, module in modules.items()}
        self._pools: dict[CudaStream, Any] = {}

    def register_stream(self, stream: CudaStream) -> None:
        """Create a memory pool for the stream."""
        self._pools[stream] = self._place.pool()

    def unregister_stream(self, stream: CudaStream) -> None:
        """Drop the memory pool of the stream."""
        del self._pools[stream]

    def bind(self, bindings: Sequence[Binding], stream: CudaStream) -> list[StreamBoundGraph]:
        """Return a bound call of a module for each binding."""
        return [self._bind(wanted, stream) for wanted in bindings]

    def close(self) -> None:
        """Drop the modules."""
        self._modules.clear()

    def _bind(self, wanted: Binding, stream: CudaStream) -> StreamBoundGraph:
        module = self._modules[wanted.graph]
        inputs = {n: self._place.tensor(device_buffer(b)) for n, b in wanted.inputs.items()}
        outputs = {n: self._place.tensor(device_buffer(b)) for n, b in wanted.outputs.items()}

        def work() -> None:
            compute(module, inputs, list(outputs.values()))

        return _BoundModule(self._place.queue(work, stream, self._pools[stream]), wanted)


def compute(module: nn.Module, inputs: dict[str, Tensor], outputs: list[Tensor]) -> None:
    """Run a graph's module and write its results into `outputs`."""
    with torch.no_grad():
        results = module(**inputs)
        for target, result in zip(
            outputs, results if isinstance(results, tuple) else (results,), strict=True
        ):
            target.copy_(result)


class _BoundModule:
    capturable = True

    def __init__(self, enqueue: Callable[[], None], keep: Binding) -> None:
        self._enqueue = enqueue
        # The tensors hold only raw addresses; the binding keeps the buffers alive.
        self._keep = keep

    def enqueue(self) -> None:
        self._enqueue()


class _Unnamed:
    """A tensor that speaks `__cuda_array_interface__` without a stream, as Numba's arrays do."""

    def __init__(self, tensor: Tensor) -> None:
        self._keep = tensor
        self.__cuda_array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": tuple(tensor.shape),
            "typestr": "|u1",
            "data": (tensor.data_ptr(), False),
            "strides": None,
            "stream": None,
        }


class _Interface:
    """A view of a buffer for other libraries (`__cuda_array_interface__`)."""

    def __init__(self, buffer: DeviceBuffer) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": buffer.shape,
            "typestr": buffer.dtype.str,
            "data": (buffer.address, False),
            "strides": None,
            "stream": None,
        }
