"""TensorRT and TensorRT for RTX on a bundle's engines, by the common part of their interfaces.

Contexts are created for one frame shape and never change it, so that captured CUDA graphs stay
valid. This module provides their scratch memory: the graphs of a session never run at the same
time, so one block of the largest size serves all three.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ikc_deploy.bundle.engine_choice import Host, find_engine
from ikc_deploy.bundle.engine_store import Engine
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.tensorrt_variants import TensorRTVariantName, load_tensorrt
from ikc_deploy.errors import BackendError, EngineError, OutOfMemoryError
from ikc_deploy.files import write_atomically
from ikc_deploy.paths import cache_folder
from ikc_deploy.runtime.backends.base import Binding, Buffer
from ikc_deploy.runtime.backends.cuda_backend import StreamBoundGraph, device_buffer
from ikc_deploy.runtime.cuda.buffers import DeviceBuffer
from ikc_deploy.runtime.cuda.device import Device
from ikc_deploy.runtime.cuda.streams import CudaStream
from ikc_deploy.runtime.frames import frame_shape
from ikc_deploy.runtime.signatures import signature


class TensorRTRunner:
    """The runner of `tensorrt` and `tensorrt-rtx`."""

    def __init__(self, bundle: Bundle, variant: TensorRTVariantName, device: Device) -> None:
        self.name: str = variant
        self._bundle = bundle
        self._device = device
        self._library = load_tensorrt(variant)
        self._host = Host(variant, self._library.version, device.compute_capability)
        # Check for any frame shape: without an engine for this machine nothing would run.
        find_engine(bundle, self._host)
        self._lock = threading.Lock()
        self._loaded: dict[tuple[str, str], _Loaded] = {}
        self._streams: weakref.WeakKeyDictionary[CudaStream, _StreamContexts]
        self._streams = weakref.WeakKeyDictionary()
        with self._device.current(), self._checked("start"):
            self._runtime = self._library.module.Runtime(self._library.logger)

    def register_stream(self, stream: CudaStream) -> None:
        """Start to track the stream's contexts; engines serve any stream."""
        self._streams[stream] = _StreamContexts()

    def unregister_stream(self, stream: CudaStream) -> None:
        """Drop the stream's contexts, then free their scratch memory."""
        self._streams.pop(stream).free()

    def bind(self, bindings: Sequence[Binding], stream: CudaStream) -> list[StreamBoundGraph]:
        """Bind graphs to contexts, one for each graph and shape, with shared scratch memory."""
        if not bindings:
            return []
        shape = frame_shape(_tensors(bindings)["lr"], self._bundle.manifest.io)
        engine, profile = find_engine(
            self._bundle, self._host, (shape.batch, shape.height, shape.width)
        )
        known = self._streams[stream].contexts
        fingerprint = engine.record.fingerprint
        keys = [(fingerprint, profile, wanted.graph, _shapes(wanted)) for wanted in bindings]
        bound: dict[_ContextKey, _Context] = {}
        with self._lock, self._device.current():
            for key, wanted in zip(keys, bindings, strict=True):
                if key not in bound:
                    bound[key] = known.get(key) or self._context(engine, profile, wanted, stream)
            new = [context for context in bound.values() if context.scratch is None]
            stream.synchronize()
            scratch = self._streams[stream].scratch(
                max((context.size for context in new), default=0), self._device
            )
            for context in new:
                context.use(scratch)
            known.update(bound)
        return [
            _BoundContext(self, bound[key], wanted, stream)
            for key, wanted in zip(keys, bindings, strict=True)
        ]

    def close(self) -> None:
        """Save the kernels that TensorRT for RTX compiled for this GPU, then drop the engines."""
        with self._lock, self._device.current():
            for loaded in self._loaded.values():
                loaded.save()
            self._loaded.clear()
            self._runtime = None

    def run(self, context: Any, wanted: Binding, stream: CudaStream) -> None:
        """Queue one execution of a context."""
        with self._device.current(), self._checked(f"run the {wanted.graph}") as require:
            for name, buffer in _tensors([wanted]).items():
                require(context.set_tensor_address(name, device_buffer(buffer).address), name)
            require(context.execute_async_v3(stream.handle), "")

    def capturable(self, context: Any, stream: CudaStream) -> bool:
        """Return whether a CUDA graph can capture a context; TensorRT for RTX may refuse."""
        if self.name != "tensorrt-rtx":
            return True
        with self._device.current():
            return bool(context.is_stream_capturable(stream.handle))

    def _context(
        self, engine: Engine, profile: int, wanted: Binding, stream: CudaStream
    ) -> _Context:
        loaded = self._load(engine, wanted.graph)
        # Nearly always memory: halved tiles need less.
        with self._checked(f"prepare the {wanted.graph}", OutOfMemoryError) as require:
            context = loaded.new_context()
            require(context is not None, "")
        with self._checked(f"prepare the {wanted.graph}") as require:
            require(context.set_optimization_profile_async(profile, stream.handle), "profile")
            for name, buffer in wanted.inputs.items():
                require(context.set_input_shape(name, buffer.shape), f"{name} {buffer.shape}")
            missing = context.infer_shapes()
            require(not missing, f"no shapes for {', '.join(missing)}")
            for name, buffer in wanted.outputs.items():
                given = tuple(context.get_tensor_shape(name))
                require(given == buffer.shape, f"{name} is {given}, not {buffer.shape}")
            size = int(context.update_device_memory_size_for_shapes())
        return _Context(self._device, [context], size)

    def _load(self, engine: Engine, graph: str) -> _Loaded:
        key = (engine.record.fingerprint, graph)
        if key not in self._loaded:
            plan = engine.plan(graph)
            with self._checked(f"load the {graph} of engine {key[0]}") as require:
                loaded = self._runtime.deserialize_cuda_engine(plan)
                require(loaded is not None, "")
                self._check_tensors(loaded, graph)
            if self.name == "tensorrt-rtx":
                file = f"{key[0]}-{graph}-{self._device.compute_capability}.cache"
                path = cache_folder() / "runtime" / file
                self._loaded[key] = _LoadedRtx(self._library.module, loaded, path)
            else:
                self._loaded[key] = _Loaded(self._library.module, loaded)
        return self._loaded[key]

    def _check_tensors(self, engine: Any, graph: str) -> None:
        """Check the names and dtypes of a plan's tensors against the manifest.

        Shapes are checked when a context is created. The kernel code must be float32 for every
        precision of the convolutions.
        """
        trt = self._library.module
        wanted = signature(self._bundle, graph)
        tensors = {**wanted.inputs, **wanted.outputs}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        if sorted(names) != sorted(tensors):
            raise EngineError(
                f"the {graph} of the engine has the tensors {', '.join(sorted(names))}, and the "
                f"manifest requires {', '.join(sorted(tensors))}; build the engine again"
            )
        for name in names:
            kind = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            if "code" in name and kind != np.float32:
                raise EngineError(f"the {graph} has a kernel code of {kind}; it must be float32")
            if kind != tensors[name].dtype:
                raise EngineError(
                    f"the {graph} of the engine has a {name} of {kind}, and the manifest requires "
                    f"{tensors[name].dtype}; build the engine again"
                )

    @contextmanager
    def _checked(self, doing: str, kind: type[BackendError] = BackendError) -> Iterator[Any]:
        """Yield `require(done, reason)`; turn failures in the block into an error of a kind."""
        messages = self._library.messages
        mark = messages.mark()

        def refused(reason: str) -> BackendError:
            said = f"{reason}: {messages.since(mark)}" if reason else messages.since(mark)
            return kind(f"{self.name} {self._library.version} cannot {doing}: {said}")

        def require(done: object, reason: str) -> None:
            if not done:
                raise refused(reason)

        try:
            yield require
        except (TypeError, ValueError, RuntimeError) as error:
            # The bindings raise these where the library returns nothing or refuses an argument.
            raise refused(str(error)) from error


class _Loaded:
    """A deserialised plan."""

    def __init__(self, trt: Any, engine: Any) -> None:
        self._trt = trt
        self._engine = engine

    def new_context(self) -> Any:
        return self._engine.create_execution_context(
            self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )

    def save(self) -> None:
        """Do nothing: TensorRT compiles plans when they are built."""


class _LoadedRtx(_Loaded):
    """A plan of TensorRT for RTX, with the cache on disk of its compiled kernels.

    TensorRT for RTX compiles kernels for the GPU and shapes in use; the cache saves this time in
    the next process.
    """

    def __init__(self, trt: Any, engine: Any, path: Path) -> None:
        super().__init__(trt, engine)
        self._path = path
        self._config = engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        # Otherwise kernels are compiled in the background, after a graph has captured slower ones.
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._cache = self._config.create_runtime_cache()
        try:
            self._known = path.read_bytes() if path.is_file() else b""
        except OSError as error:
            self._known = b""
            _warn(path, error)
        # A cache of another driver or GPU is refused, and replaced by this one in `save`.
        self._valid = bool(self._known) and self._cache.deserialize(self._known)
        if not self._config.set_runtime_cache(self._cache):
            raise BackendError("tensorrt-rtx refuses its runtime cache; update tensorrt_rtx")

    def new_context(self) -> Any:
        return self._engine.create_execution_context(self._config)

    def save(self) -> None:
        content = self._cache.serialize()
        if content is None:
            return
        data = bytes(content)
        if data and (data != self._known or not self._valid):
            try:
                write_atomically(self._path, data)
            except OSError as error:
                _warn(self._path, error)


def _warn(path: Path, error: OSError) -> None:
    """Warn that the cache is not used; the kernels are compiled again."""
    warnings.warn(
        f"compiled kernels are not kept in '{path}': {error.strerror}", RuntimeWarning, stacklevel=2
    )


_ContextKey = tuple[str, int, str, tuple[tuple[int, ...], ...]]
"""Engine, profile, graph and shapes of the tensors."""


class _Context:
    """A context of TensorRT, dropped with the device's CUDA context current.

    Args:
        device: The GPU.
        things: The context; no other references may exist.
        size: Scratch memory in bytes that it needs.
    """

    def __init__(self, device: Device, things: list[Any], size: int) -> None:
        self.size = size
        # Kept alive: the context holds its raw address.
        self.scratch: DeviceBuffer | None = None
        self._things = things
        self.free = device.owned(self, things)

    def use(self, scratch: DeviceBuffer) -> None:
        self._things[0].set_device_memory(scratch.address, scratch.nbytes)
        self.scratch = scratch

    @property
    def context(self) -> Any:
        return self._things[0]


class _StreamContexts:
    """The contexts of a stream, which never run at once, so that one block of scratch serves all.

    A context that needs a larger one gets a new block; captured graphs know the old one's address.
    """

    def __init__(self) -> None:
        self.contexts: weakref.WeakValueDictionary[_ContextKey, _Context]
        self.contexts = weakref.WeakValueDictionary()
        self._blocks: weakref.WeakSet[DeviceBuffer] = weakref.WeakSet()

    def scratch(self, size: int, device: Device) -> DeviceBuffer:
        for block in self._blocks:
            if block.nbytes >= size:
                return block
        block = DeviceBuffer(device, (max(1, size),), np.uint8)
        self._blocks.add(block)
        return block

    def free(self) -> None:
        for context in list(self.contexts.values()):
            context.free()
        for block in list(self._blocks):
            block.free()


class _BoundContext:
    def __init__(
        self, runner: TensorRTRunner, context: _Context, wanted: Binding, stream: CudaStream
    ) -> None:
        self._runner = runner
        self._context = context
        self._wanted = wanted
        self._stream = stream

    @property
    def capturable(self) -> bool:
        return self._runner.capturable(self._context.context, self._stream)

    def enqueue(self) -> None:
        self._runner.run(self._context.context, self._wanted, self._stream)


def _shapes(wanted: Binding) -> tuple[tuple[int, ...], ...]:
    return tuple(buffer.shape for buffer in _tensors([wanted]).values())


def _tensors(bindings: Sequence[Binding]) -> dict[str, Buffer]:
    return {
        name: buffer
        for wanted in bindings
        for buffers in (wanted.inputs, wanted.outputs)
        for name, buffer in buffers.items()
    }
