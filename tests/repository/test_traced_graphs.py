from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.bundles import EXPORTS
from tests.traced_graphs import keep_traces


class Scaled(nn.Module):
    """A module with a weight, a plain setting and code of its own."""

    def __init__(self, weight: float, power: int) -> None:
        super().__init__()
        self.weight, self.power = nn.Parameter(torch.full((3,), weight)), power

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x**self.power


def doubled(self: Scaled, x: Tensor) -> Tensor:
    return 2 * self.weight * x**self.power


def options(size: int = 4, **changes: Any) -> dict[str, Any]:
    axes = {"x": {0: torch.export.Dim("batch")}}
    return {"kwargs": {"x": torch.zeros(2, size)}, "dynamic_shapes": axes, **changes}


def test_a_trace_is_kept_until_anything_it_depends_on_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[nn.Module] = []

    def export(model: nn.Module, **_: object) -> object:
        traced.append(model)
        graph = onnx.helper.make_graph([], f"graph {len(traced)}", [], [])
        return SimpleNamespace(model_proto=onnx.helper.make_model(graph))

    monkeypatch.setattr(torch.onnx, "export", export)
    monkeypatch.setenv(EXPORTS, str(tmp_path / "exports"))
    keep_traces(monkeypatch)

    def number(model: nn.Module, **given: Any) -> str:
        return str(torch.onnx.export(model, **(given or options())).model_proto.graph.name)  # type: ignore[union-attr]

    assert [number(Scaled(1.5, 2)) for _ in range(3)] == ["graph 1"] * 3
    assert number(Scaled(1.6, 2)) == "graph 2"
    assert number(Scaled(1.5, 3)) == "graph 3"
    assert number(Scaled(1.5, 2), **options(5)) == "graph 4"
    assert number(Scaled(1.5, 2), **options(opset_version=17)) == "graph 5"
    assert number(nn.Sequential(Scaled(1.5, 2))) == "graph 6"
    with monkeypatch.context() as patch:
        patch.setattr(Scaled, "forward", doubled)
        assert number(Scaled(1.5, 2)) == "graph 7"
    assert number(Scaled(1.5, 2)) == "graph 1"
    monkeypatch.delenv(EXPORTS)
    assert number(Scaled(1.5, 2)) == "graph 8"
