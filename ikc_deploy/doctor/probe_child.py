"""The process in which the doctor tries one part of the machine; its answer is the last line.

A driver may print, hang or crash here without effect on the doctor.

    python -m ikc_deploy.doctor.probe_child                          # the listed providers
    python -m ikc_deploy.doctor.probe_child CUDAExecutionProvider    # those that a session uses
    python -m ikc_deploy.doctor.probe_child openvino                 # the devices of OpenVINO
    python -m ikc_deploy.doctor.probe_child openvino CPU             # name and capabilities of one
    python -m ikc_deploy.doctor.probe_child auto                     # the backend of "auto"
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Final

OPENVINO: Final = "openvino"
"""First argument for OpenVINO; also its distribution and module."""

AUTO: Final = "auto"
"""Argument for the value of `load(backend=...)` whose meaning here is examined."""

# y = x + x, float32 [1], opset 17: made once with onnx.helper.make_node("Add", ["x", "x"], ["y"]),
# make_graph, make_model(ir_version=8) and SerializeToString, so that probing does not need onnx.
MODEL: Final = (
    "CAg6NQoOCgF4CgF4EgF5IgNBZGQSAWdaDwoBeBIKCggIARIECgIIAWIPCgF5EgoKCAgBEgQKAggBQgQKABAR"
)


def _answer(arguments: list[str]) -> list[str]:
    if arguments == [AUTO]:
        return _auto()
    return _openvino(arguments[1:]) if arguments[:1] == [OPENVINO] else _onnx_runtime(arguments)


def _auto() -> list[str]:
    """Return name, device and precision of the backend, then names and reasons in turn."""
    from ikc_deploy.export.default_bundle import default_bundle
    from ikc_deploy.runtime.backends.backend_choice import choose_backend

    backend, passed = choose_backend(default_bundle())
    precision = getattr(backend, "precision", "")
    reason = getattr(backend, "explanation", "")
    answer = [backend.name, backend.device, f"{precision} ({reason})" if reason else precision]
    backend.close()
    return [*answer, *(text for pair in passed.items() for text in pair)]


def _openvino(arguments: list[str]) -> list[str]:
    import io

    import numpy as np
    import openvino

    core = openvino.Core()
    if not arguments:
        return list(core.available_devices)
    (device,) = arguments
    model = core.compile_model(core.read_model(io.BytesIO(base64.b64decode(MODEL))), device)
    (total,) = model({"x": np.ones(1, np.float32)}).values()
    if total != [2]:
        raise SystemExit(f"it computes 1 + 1 = {total[0]}")
    product = str(core.get_property(device, "FULL_DEVICE_NAME"))
    return [product, *core.get_property(device, "OPTIMIZATION_CAPABILITIES")]


def _onnx_runtime(arguments: list[str]) -> list[str]:
    import numpy as np
    import onnxruntime

    if not arguments:
        return list(onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = base64.b64decode(MODEL)
    session = onnxruntime.InferenceSession(model, options, providers=arguments)
    (total,) = session.run(None, {"x": np.ones(1, np.float32)})
    if total != [2]:
        raise SystemExit(f"it computes 1 + 1 = {total[0]}")
    return list(session.get_providers())


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1:])))
