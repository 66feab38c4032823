"""OpenVINO on a CPU, or on a GPU or NPU of Intel. Buffers are numpy arrays in host memory.

Graphs are compiled once for each large shape and once for all small ones (`openvino_models`), and
read and write the arrays in place. The precision is always set: OpenVINO's default is bfloat16
wherever the CPU has it, whatever it costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BackendError
from ikc_deploy.paths import cache_folder
from ikc_deploy.runtime.backends.base import Binding, BoundGraph
from ikc_deploy.runtime.backends.compiled_cache import CompiledCache
from ikc_deploy.runtime.backends.host_backend import HostBackend, host_array
from ikc_deploy.runtime.backends.openvino_devices import (
    Arithmetic,
    OpenVinoDevice,
    check_settings,
    find_device,
    open_core,
)
from ikc_deploy.runtime.backends.openvino_models import OpenVinoModels, failure

_LACKS: Final[dict[Arithmetic, str]] = {
    "bf16": "a CPU needs AMX or AVX512_BF16 for it",
    "f16": "a CPU needs AVX512_FP16 or AMX-FP16 for it",
    "f32": "no precision of 16 bits passed",
}


class OpenVino(HostBackend):
    """The `openvino` backend.

    Clones share the compiled models, and each has requests of its own, so that one copies frames
    while another computes.

    Args:
        models: The compiled models.
        explanation: The reason for their precision.
    """

    name = "openvino"

    def __init__(self, models: OpenVinoModels, explanation: str) -> None:
        self._models: OpenVinoModels | None = models
        self.precision: Arithmetic = models.precision
        """Precision of everything on images that the graphs do not quantise, but for the first
        estimate of the blur, which is float32."""
        self.explanation = explanation
        """Reason for the precision."""
        found = models.device
        self.device = "cpu" if found.name == "CPU" else f"{found.full_name} ({found.name})"

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        device: str = "CPU",
        precision: str = "auto",
        threads: int = 0,
        *,
        found: OpenVinoDevice | None = None,
    ) -> OpenVino:
        """Read the graphs of a bundle and decide on the precision.

        Args:
            bundle: The opened bundle.
            device: One of `openvino_devices.DEVICES`, possibly with a number.
            precision: One of `openvino_devices.PRECISIONS`. "auto" selects a precision of 16 bits
                that the device computes natively if it passes the gate (`precision_gate`), which
                runs on first use, and float32 otherwise.
            threads: Number of CPU cores; 0 for all.
            found: Description of the device; None asks OpenVINO.

        Returns:
            The backend, owned by the caller.

        Raises:
            InputError: `device` or `precision` is unknown.
            MissingExtraError: OpenVINO is not installed.
            BackendError: The device is missing, does not compute the precision natively, or
                OpenVINO cannot read a graph.
            BundleError: A graph was altered or does not match the manifest.
        """
        check_settings(device, precision)
        chosen = found or find_device(open_core(), device)
        settled, explanation = cast(Arithmetic, precision), "requested"
        if precision == "auto":
            settled, explanation = _gated(bundle, chosen, threads)
        if not chosen.computes(settled):
            raise BackendError(
                f"{chosen.full_name} ({chosen.name}) does not compute {settled} natively, and "
                f"{_LACKS[settled]}; choose another device or precision ({explanation})"
            )
        return cls(OpenVinoModels(bundle, chosen, settled, threads, _cache()), explanation)

    def compile_open_shapes(self) -> None:
        """Compile every graph for open shapes, unless another process did, to know that it works.

        Raises:
            BackendError: OpenVINO refuses a graph or the precision.
        """
        self._open_models().compile_open_shapes()

    def clone(self) -> OpenVino:
        """Return a backend with the same compiled models and requests of its own."""
        return OpenVino(self._open_models(), self.explanation)

    def bind(self, bindings: Sequence[Binding]) -> list[BoundGraph]:
        """Compile the graphs for the shapes of their buffers, and bind them to the arrays."""
        models = self._open_models()
        return [_BoundRequest(models, binding) for binding in bindings]

    def close(self) -> None:
        """Drop the models."""
        self._models = None

    def _open_models(self) -> OpenVinoModels:
        if self._models is None:
            raise BackendError("this backend is closed; open another one")
        return self._models


class _BoundRequest:
    """Inference requests, one for each part of a graph, whose tensors are the buffers' memory."""

    def __init__(self, models: OpenVinoModels, wanted: Binding) -> None:
        self._models = models
        shapes = {name: buffer.shape for name, buffer in wanted.inputs.items()}
        self._compiled = models.compiled(wanted.graph, shapes)
        self._size = sum(math.prod(shape) for shape in shapes.values())
        # The tensors point into the arrays, so the arrays must live as long as the request.
        self._arrays = {
            name: host_array(buffer)
            for buffers in (wanted.inputs, wanted.outputs)
            for name, buffer in buffers.items()
        }
        batch = next(iter(shapes.values()))[0]
        try:
            self._requests = [self._request(model, batch) for model in self._compiled.models]
        except (RuntimeError, MemoryError) as error:
            raise failure(f"bind the {wanted.graph}", error) from error

    def _request(self, model: Any, batch: int) -> Any:
        """Return a request on the arrays; vectors between two parts get new arrays."""
        from openvino import Tensor

        request = model.create_infer_request()
        for port in (*model.inputs, *model.outputs):
            known = port.names & self._arrays.keys()
            if not known:
                shape = [size.get_length() for size in port.partial_shape if size.is_static]
                open_batch = [batch] * (len(port.partial_shape) - len(shape))
                array = np.empty(open_batch + shape, port.element_type.to_dtype())
                self._arrays |= dict.fromkeys(port.names, array)
            array = self._arrays[min(known or port.names)]
            request.set_tensor(port, Tensor(array, shared_memory=True))
        return request

    def enqueue(self) -> None:
        self._models.use(self._compiled, self._size)
        try:
            for request in self._requests:
                # `infer` would copy every output into a new array.
                request.start_async()
                request.wait()
        except (RuntimeError, MemoryError) as error:
            raise failure(f"run the {self._compiled.graph} at this frame size", error) from error


def _cache() -> CompiledCache:
    return CompiledCache(cache_folder() / "openvino")


def _gated(bundle: Bundle, device: OpenVinoDevice, threads: int) -> tuple[Arithmetic, str]:
    """Return the precision that `precision="auto"` means, and the reason for it."""
    from ikc_deploy.runtime.backends.precision_gate import (
        GateResult,
        candidates,
        choose_precision,
        measure,
    )

    def gate(precision: Arithmetic) -> GateResult:
        cache = _cache()
        models = OpenVinoModels(bundle, device, precision, threads, cache)
        key = models.identity() | {
            "gate": [bundle.files[f"{graph}.onnx"].sha256 for graph in bundle.loop.graphs],
            "iters": bundle.manifest.recommended_iters,
        }
        known = cache.load(key)
        if known is not None:
            return GateResult.decode(known)
        cpu = device if device.name == "CPU" else find_device(open_core(), "CPU")
        reference = OpenVinoModels(bundle, cpu, "f32", threads, cache)
        result = measure(bundle, OpenVino(reference, ""), OpenVino(models, ""))
        cache.store(key, result.encode())
        return result

    return choose_precision(candidates(bundle, device), gate)
