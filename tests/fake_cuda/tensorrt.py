"""A stand-in for TensorRT and TensorRT for RTX at run time, on the fake driver.

It has the part of their interface that `ikc_deploy.runtime.backends.tensorrt` uses, with its
habits: failures are return values and a message to the logger. A plan is the name of a graph, which
ONNX Runtime's CPU provider computes. Shapes must be set before sizes are asked for, scratch memory
and addresses before a run, or the run is refused. `tests/runtime/test_tensorrt_contract.py` holds
these classes against the real bindings.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import numpy as np

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.tensorrt_variants import (
    TENSORRT_VARIANTS,
    Messages,
    TensorRT,
    TensorRTVariantName,
)
from ikc_deploy.errors import BackendError
from ikc_deploy.runtime.backends.onnx_sessions import load_sessions
from ikc_deploy.runtime.cuda.device import open_device
from tests.fake_cuda.driver import Driver
from tests.fake_cuda.kernels import Kernel

SCRATCH: Final = 4096
"""Bytes that a context asks for."""


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    USER_MANAGED = 2


class DynamicShapesKernelSpecializationStrategy(Enum):
    LAZY = 0
    EAGER = 1


class IRuntimeCache:
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._content = b""

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"cache"):
            return False
        self._content = bytes(blob)
        self._stand_in.caches_read += 1
        return True

    def serialize(self) -> bytes:
        return self._content or b"cache of kernels"


class IRuntimeConfig:
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self.dynamic_shapes_kernel_specialization_strategy = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )
        self.strategy = ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache(self._stand_in)

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        return isinstance(cache, IRuntimeCache)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._stand_in = engine.stand_in
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = 0
        self._kernels: dict[tuple[tuple[str, int], ...], Kernel] = {}

    def __del__(self) -> None:
        driver = self._stand_in.driver
        self._stand_in.ends.append((driver.depth, driver.count("streams gone")))

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return self._stand_in.does("set_optimization_profile_async") and stream_handle > 2

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return self._stand_in.does("set_input_shape")

    def infer_shapes(self) -> list[str]:
        wanted = [node.name for node in self._engine.session.get_inputs()]
        return [name for name in wanted if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        lr = self._shapes.get("lr") or self._shapes["sr"]
        if name == "frame":
            return (lr[0], 4 * lr[1], 4 * lr[2], 3)
        return (lr[0], 3, 4 * lr[1], 4 * lr[2]) if name == "sr" else (lr[0], 10)

    def update_device_memory_size_for_shapes(self) -> int:
        return SCRATCH if not self.infer_shapes() else 0

    def set_device_memory(self, memory: int, size: int) -> None:
        if size < SCRATCH or memory % 256:
            raise RuntimeError("too little or ill-aligned device memory")
        self._scratch = memory
        self._stand_in.scratch.append((memory, size))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return self._stand_in.does("set_tensor_address")

    def is_stream_capturable(self, stream: int) -> bool:
        return self._stand_in.capturable

    def execute_async_v3(self, stream_handle: int) -> bool:
        if not self._stand_in.does("execute_async_v3") or not self._scratch:
            return False
        key = tuple(sorted(self._addresses.items()))
        if key not in self._kernels:
            self._kernels[key] = Kernel(self._function(dict(key)), open_device())
        try:
            self._kernels[key].launch(stream_handle)
        except BackendError:
            return False
        return True

    def _function(self, addresses: Mapping[str, int]) -> Any:
        session = self._engine.session
        binding = session.io_binding()
        for node in session.get_inputs():
            self._bind(binding.bind_input, node.name, addresses, self._shapes[node.name])
        for node in session.get_outputs():
            shape = self.get_tensor_shape(node.name)
            self._bind(binding.bind_output, node.name, addresses, shape)
        return lambda: session.run_with_iobinding(binding)

    def _bind(
        self, bind: Any, name: str, addresses: Mapping[str, int], shape: tuple[int, ...]
    ) -> None:
        bind(name, "cpu", 0, self._engine.get_tensor_dtype(name).type, shape, addresses[name])


class ICudaEngine:
    def __init__(self, stand_in: StandIn, session: Any) -> None:
        self.stand_in = stand_in
        self.session = session
        nodes = (*session.get_inputs(), *session.get_outputs())
        self._kinds = {node.name: node.type for node in nodes}

    @property
    def num_io_tensors(self) -> int:
        return len(self._kinds)

    def get_tensor_name(self, index: int) -> str:
        return list(self._kinds)[index]

    def get_tensor_dtype(self, name: str) -> np.dtype[Any]:
        if "code" in name and self.stand_in.half_codes:
            return np.dtype(np.float16)
        return np.dtype(np.uint8 if "uint8" in self._kinds[name] else np.float32)

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig(self.stand_in)

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy | IRuntimeConfig
    ) -> IExecutionContext | None:
        if isinstance(strategy, IRuntimeConfig):
            eager = DynamicShapesKernelSpecializationStrategy.EAGER
            assert strategy.dynamic_shapes_kernel_specialization_strategy is eager
            strategy = strategy.strategy
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self.stand_in.contexts += 1
        return IExecutionContext(self) if self.stand_in.does("create_execution_context") else None


class Runtime:
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        session = self._stand_in.sessions.get(serialized_engine.split()[-1].decode())
        if session is None:
            self._stand_in.messages.add("the plan is corrupt", error=True)
            return None
        return ICudaEngine(self._stand_in, session)


class StandIn:
    """The module, as far as it is used; what it is told to refuse, it refuses once."""

    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy

    def __init__(self, bundle: Bundle) -> None:
        self.sessions = load_sessions(bundle, "CPUExecutionProvider", {}, threads=1)
        self.messages = Messages()
        self.capturable = True
        self.half_codes = False
        self.contexts = 0
        self.driver = Driver()
        self.ends: list[tuple[int, int]] = []
        """CUDA contexts current, and streams destroyed, when a context was dropped."""
        self.scratch: list[tuple[int, int]] = []
        """Address and size of the scratch memory of each context."""
        self.caches_read = 0
        self._refused: dict[str, int] = {}

    def Runtime(self, logger: object) -> Runtime:
        return Runtime(self)

    def nptype(self, trt_type: np.dtype[Any]) -> type:
        return trt_type.type

    def refuse(self, method: str, after: int = 0) -> None:
        """Let the call after the next `after` ones of a method fail."""
        self._refused[method] = after

    def does(self, method: str) -> bool:
        """Whether a call of a method succeeds."""
        after = self._refused.get(method)
        if after is None:
            return True
        if after > 0:
            self._refused[method] = after - 1
            return True
        del self._refused[method]
        self.messages.add(f"{method} was refused", error=True)
        return False

    def library(self, variant: TensorRTVariantName, version: str) -> TensorRT:
        """As `load_tensorrt` gives it."""
        return TensorRT(TENSORRT_VARIANTS[variant], version, self, object(), self.messages)
