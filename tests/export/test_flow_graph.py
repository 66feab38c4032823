from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ikc_deploy.errors import ExportError
from ikc_deploy.export import flow_graph as export
from ikc_deploy.export.flow_graph import export_flow
from ikc_deploy.networks.flow import load_flow


def test_the_graph_gives_torchs_kernels(tmp_path: Path) -> None:
    prior, path = load_flow(4), tmp_path / "fkp.onnx"
    assert export_flow(prior, path) < 1e-6
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    z = np.random.default_rng(1).standard_normal((5, prior.size**2)).astype(np.float32)
    (found,) = session.run(None, {"z": z})
    np.testing.assert_allclose(found, prior.decode(torch.from_numpy(z)).numpy(), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, atol=1e-5)
    # Operators that every engine has.
    known = {"Add", "Sub", "Mul", "Div", "Exp", "Tanh", "Relu", "Sigmoid", "Gemm", "MatMul"}
    known |= {"Sqrt", "Neg", "Reshape", "ReduceSum", "Transpose", "Concat", "Shape"}
    assert {node.op_type for node in onnx.load(path).graph.node} <= known


def test_a_graph_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PARITY", 0.0)
    with pytest.raises(ExportError, match="not written"):
        export_flow(load_flow(4), tmp_path / "fkp.onnx")
    assert list(tmp_path.iterdir()) == []
