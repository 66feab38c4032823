"""A bundle's graphs as models that OpenVINO compiled, with a cache on disk.

Shapes with at least `MIN_FIXED_WORK` get models of their own, the fastest. All smaller ones share
one model for open shapes: compiling for a new shape would take longer than it saves on a frame. The
shape alone decides, since both kinds of models round differently, and equal frames must give equal
images in every call.

In 16 bits, a graph is cut into several models, of which those on vectors compute in float32
(`vector_cut`). The graph of the first estimate stays in float32 as a whole: everything that follows
depends on it, and it takes little of the time.

OpenVINO's own cache (CACHE_DIR) takes a damaged file for a model. So compiled models are exported
into a `CompiledCache` and imported from there.
"""

from __future__ import annotations

import io
import math
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError, OutOfMemoryError
from ikc_deploy.loops import LR, SR
from ikc_deploy.runtime.backends.compiled_cache import CompiledCache
from ikc_deploy.runtime.backends.openvino_devices import (
    Arithmetic,
    OpenVinoDevice,
    open_core,
    reason,
)
from ikc_deploy.runtime.backends.signal_stack import kept_signal_stack
from ikc_deploy.runtime.backends.vector_cut import Part, cut_vectors
from ikc_deploy.runtime.frames import MIN_SIDE, FrameShape
from ikc_deploy.runtime.onnx_files import read_graph
from ikc_deploy.runtime.signatures import Signature, Tensor, check_signature, signature

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a graph's inputs, by name."""

MIN_FIXED_WORK: Final = 2e11
"""Minimum work of a pass for which a shape has a model of its own on a CPU: LR pixels of all frames
of a call times bytes of the image graph in float32, to which the multiply-accumulates are
proportional. That is 210x210 pixels for the shipped weights, and 108x108 for full-size networks."""

_OPEN: Final = "any shape"
"""Shapes of a model for frames of any size, in keys of the cache."""

_MEMORY_OF_SHAPES: Final = 1.5
"""Maximum memory for activations of a graph for all shapes, relative to that for the largest."""

WITHOUT_SNIPPETS: Final = {"SNIPPETS_MODE": "DISABLE"}
"""Setting of OpenVINO for graphs on a CPU that return a code. For a fixed shape in float32, its
compiler of snippets (2026.4) ends the process with a segmentation fault if elementwise operations
that follow two linear layers also read the results of others, as the mixture of experts in the
predictor of x4-lite does. Codes are equal bit by bit without it. Image graphs have no such
operations on vectors, and would be 4 % slower."""

_MEMORY: Final = ("bad_alloc", "allocate", "out of memory", "OUT_OF_MEMORY")
"""Parts of OpenVINO's messages about missing memory."""


class CompiledGraph:
    """A graph compiled for one shape or for open shapes, shared by all requests on it.

    Args:
        graph: Name of the graph.
        models: OpenVINO's `CompiledModel`s of its parts, in the order in which they run. A part
            reads the inputs of the graph, and outputs of the parts before, by name.
    """

    def __init__(self, graph: str, models: Sequence[Any]) -> None:
        self.graph = graph
        self.models = tuple(models)
        self.size = 0
        """Number of entries of the largest inputs since the last release, to which the memory for
        activations is proportional."""
        self.last_use = 0
        """Time of the last use in uses of any graph; 0 if it holds no memory for activations."""

    def release(self) -> bool:
        """Free the memory for activations; return False if a request is running."""
        try:
            for model in self.models:
                model.release_memory()
        except RuntimeError:
            return False
        self.size = self.last_use = 0
        return True


class OpenVinoModels:
    """The compiled models of one bundle on one device, for any number of backends and threads.

    Args:
        bundle: The opened bundle.
        device: The device.
        precision: The precision of everything on images that the graphs do not quantise.
        threads: Number of CPU cores; 0 for all.
        cache: The cache on disk.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendError: OpenVINO cannot read a graph.
        BundleError: A graph was altered, has tensors in other files, or has other inputs and
            outputs than the manifest specifies.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: OpenVinoDevice,
        precision: Arithmetic,
        threads: int,
        cache: CompiledCache,
    ) -> None:
        self.device = device
        self.precision: Arithmetic = precision
        self._bundle = bundle
        self._cache = cache
        self._core = open_core()
        self._threads = threads
        self._graphs = {graph: self._read(graph) for graph in bundle.loop.graphs}
        self._lock = threading.Lock()
        # Compiled graphs belong to their requests, and go when the last session of a shape goes.
        self._compiled: weakref.WeakValueDictionary[tuple[object, ...], CompiledGraph]
        self._compiled = weakref.WeakValueDictionary()
        self._open_shapes: list[CompiledGraph] = []
        self._use_lock = threading.Lock()
        self._uses = 0

    def compiled(self, graph: str, shapes: Shapes) -> CompiledGraph:
        """Return a compiled graph: one in use, one from the cache on disk, or a new one.

        Args:
            graph: Name of the graph.
            shapes: Shapes of its inputs.

        Returns:
            The graph for this shape or, for a small one, for open shapes, shared by all callers
            while one of them keeps it.

        Raises:
            BackendError: OpenVINO refuses the graph, a shape or the precision.
            OutOfMemoryError: There is too little memory to compile it.
        """
        return self._shared(graph, shapes if self._fixed(shapes) else None)

    def compile_open_shapes(self) -> None:
        """Compile every graph for open shapes that is not in the cache, and keep it for frames.

        Raises:
            BackendError: OpenVINO refuses a graph or the precision.
            OutOfMemoryError: There is too little memory to compile it.
        """
        for graph in self._graphs:
            parts = len(self._parts(graph, None))
            if any(self._cache.load(self._key(graph, None, part)) is None for part in range(parts)):
                self._open_shapes.append(self._shared(graph, None))

    def _shared(self, graph: str, shapes: Shapes | None) -> CompiledGraph:
        key = (graph, _text(shapes))
        with self._lock:
            found = self._compiled.get(key)
            if found is None:
                with kept_signal_stack():
                    models = [
                        self._imported(graph, shapes, number, part)
                        or self._compile(graph, shapes, number, part)
                        for number, part in enumerate(self._parts(graph, shapes))
                    ]
                found = self._compiled[key] = CompiledGraph(graph, models)
        return found

    def _parts(self, graph: str, shapes: Shapes | None) -> tuple[Part, ...]:
        given = self._graphs[graph]
        if shapes is not None:
            given = self._reshaped(graph, given, shapes)
        if self.precision == "f32" or self._is_start(graph):
            return (Part(given, on_vectors=False),)
        return cut_vectors(given if shapes is not None else given.clone())

    def _fixed(self, shapes: Shapes) -> bool:
        """Return whether a shape has a model of its own; only CPUs run open ones well."""
        pixels = math.prod(shapes[LR]) // 3 if LR in shapes else 0
        if SR in shapes:
            pixels = math.prod(shapes[SR]) // (3 * self._bundle.manifest.scale**2)
        size = self._bundle.files[f"{self._bundle.loop.image.name}.onnx"].bytes
        if self._bundle.manifest.precision != "fp32":
            # Half of the bytes: in INT8, a part of the convolutions stays in float32.
            size *= 2
        return self.device.name != "CPU" or pixels * size >= MIN_FIXED_WORK

    def use(self, compiled: CompiledGraph, size: int) -> None:
        """Note that a graph is going to run, and free the memory of those not used for longest.

        Args:
            compiled: The graph.
            size: Number of entries of its inputs.

        Every model keeps memory for its activations, of which frames of four shapes would need
        four times as much as one. Small shapes, such as crops of large frames, keep their models.
        """
        with self._use_lock:
            self._uses += 1
            compiled.last_use = self._uses
            compiled.size = max(compiled.size, size)
            holding = [
                other
                for other in list(self._compiled.values())
                if other.graph == compiled.graph and other.last_use
            ]
            total = sum(other.size for other in holding)
            limit = _MEMORY_OF_SHAPES * max(other.size for other in holding)
            for other in sorted(holding, key=lambda each: each.last_use):
                if total <= limit:
                    return
                size = other.size
                if other is not compiled and other.release():
                    total -= size

    def _read(self, graph: str) -> Any:
        data = read_graph(self._bundle, graph)
        try:
            model = self._core.read_model(io.BytesIO(data))
        except RuntimeError as error:
            path = self._bundle.graph(graph)
            raise BackendError(f"OpenVINO cannot read '{path}': {reason(error)}") from error
        check_signature(self._bundle, graph, _signature(model))
        if graph == self._bundle.loop.image.name:
            self._check_scale(model)
        return model

    def _check_scale(self, model: Any) -> None:
        """Check the size of images against the manifest's scale, on the smallest frame."""
        shape, graph = FrameShape(1, MIN_SIDE, MIN_SIDE), self._bundle.loop.image.name
        inputs = signature(self._bundle, graph, shape).inputs
        small = self._reshaped(graph, model, _sizes(inputs))
        check_signature(self._bundle, graph, _signature(small), shape)

    def _reshaped(self, graph: str, model: Any, shapes: Shapes) -> Any:
        fixed = model.clone()
        try:
            fixed.reshape({name: list(shape) for name, shape in shapes.items()})
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO refuses the {graph} of '{self._bundle.path}' on inputs of "
                f"{_text(shapes)}: {reason(error)}"
            ) from error
        return fixed

    def _imported(self, graph: str, shapes: Shapes | None, number: int, part: Part) -> Any:
        if not self.device.compiles_ahead:
            return None
        content = self._cache.load(self._key(graph, shapes, number))
        if content is None:
            return None
        try:
            model = self._core.import_model(
                io.BytesIO(content), self.device.name, self._config(graph, part)
            )
        except RuntimeError:
            # Another driver or another CPU under the same name: it is compiled again and replaced.
            return None
        return self._checked(graph, model, part)

    def _compile(self, graph: str, shapes: Shapes | None, number: int, part: Part) -> Any:
        try:
            model = self._core.compile_model(
                part.model, self.device.name, self._config(graph, part)
            )
        except (RuntimeError, MemoryError) as error:
            raise failure(f"compile the {graph} for inputs of {_text(shapes)}", error) from error
        self._checked(graph, model, part)
        if self.device.compiles_ahead:
            self._cache.store(self._key(graph, shapes, number), model.export_model().getvalue())
        return model

    def _is_start(self, graph: str) -> bool:
        start = self._bundle.loop.start
        return start is not None and start.name == graph

    def _precision(self, graph: str, part: Part) -> Arithmetic:
        return "f32" if part.on_vectors or self._is_start(graph) else self.precision

    def _config(self, graph: str, part: Part) -> dict[str, Any]:
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self._precision(graph, part),
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self.device.name == "CPU":
            # Pinned threads of several processes would share the first cores and leave others idle.
            config |= {"NUM_STREAMS": "1", "ENABLE_CPU_PINNING": False}
            if self._threads:
                config["INFERENCE_NUM_THREADS"] = self._threads
            if part.on_vectors or graph != self._bundle.loop.image.name:
                config |= WITHOUT_SNIPPETS
        return config

    def _checked(self, graph: str, model: Any, part: Part) -> Any:
        """Return `model`; raise `BackendError` if it computes in another precision."""
        given = model.get_property("INFERENCE_PRECISION_HINT").to_string()
        wanted = self._precision(graph, part)
        if given != wanted:
            raise BackendError(
                f"OpenVINO compiled the {graph} in {given} instead of {wanted} for "
                f"{self.device.full_name}; use the precision f32"
            )
        return model

    def _key(self, graph: str, shapes: Shapes | None, number: int) -> dict[str, object]:
        return {
            **self.identity(),
            "graph": self._bundle.files[f"{graph}.onnx"].sha256,
            "shapes": _text(shapes),
            "part": number,
        }

    def identity(self) -> dict[str, object]:
        """Return what every compiled model depends on beside its graph, for keys of the cache."""
        from openvino import get_version

        return {
            "openvino": get_version(),
            "device": self.device.name,
            "product": self.device.full_name,
            "architecture": self.device.architecture,
            "capabilities": sorted(self.device.capabilities),
            "precision": self.precision,
            "float32": "first estimate, vectors",
        }


def failure(doing: str, error: BaseException) -> BackendError:
    """Return this package's error for an exception of OpenVINO.

    Args:
        doing: What failed, after "cannot".
        error: The exception.

    Returns:
        An `OutOfMemoryError` if memory was missing, else a `BackendError`.
    """
    if isinstance(error, MemoryError) or any(part in str(error) for part in _MEMORY):
        return OutOfMemoryError(
            f"not enough memory to {doing}; use smaller frames or tiles ({reason(error)})"
        )
    return BackendError(f"OpenVINO cannot {doing}: {reason(error)}")


def _signature(model: Any) -> Signature:
    """Return the inputs and outputs of a model; open sizes are None."""

    def tensors(ports: Any) -> dict[str, Tensor]:
        return {
            port.any_name: Tensor(
                _dtype(port.element_type),
                tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
                if port.partial_shape.rank.is_static
                else (),
            )
            for port in ports
        }

    return Signature(tensors(model.inputs), tensors(model.outputs))


def _dtype(element_type: Any) -> np.dtype[Any]:
    try:
        return np.dtype(element_type.to_dtype())
    except RuntimeError:
        return np.dtype(object)


def _sizes(inputs: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(size or 1 for size in tensor.shape) for name, tensor in inputs.items()}


def _text(shapes: Shapes | None) -> str:
    if shapes is None:
        return _OPEN
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
