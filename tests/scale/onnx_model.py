"""A network as a Python model over ONNX Runtime, for servers without Triton's ONNX backend.

The server's tests put it beside `model.onnx` as `model.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = Path(__file__).with_name("model.onnx")
        self._session = onnxruntime.InferenceSession(str(path), options)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        names = list(request.requested_output_names())
        feeds = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        outputs = self._session.run(names, feeds)
        tensors = [triton.Tensor(*pair) for pair in zip(names, outputs, strict=True)]
        return triton.InferenceResponse(tensors)
