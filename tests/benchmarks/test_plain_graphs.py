"""The peers run the plain graphs, and an engine that converts them wrongly is not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.benchmarks.plain_engines import NcnnEngine, OnnxRuntimeEngine, PlainGraph
from ikc_deploy.benchmarks.plain_graphs import PlainGraphsRunner
from ikc_deploy.errors import BackendError
from tests.bundles import save_small

CASE = BenchmarkCase(height=16, width=24, iters=0, batch=1)


@dataclass(frozen=True)
class TwoCodes:
    """ONNX Runtime, but with each code twice, as ncnn returned it for a mean over a stack."""

    library = "twice"
    precision = "fp32"

    def open(self, path: Path, shapes: Mapping[str, tuple[int, ...]], threads: int) -> PlainGraph:
        """Open the graph in ONNX Runtime."""
        run = OnnxRuntimeEngine().open(path, shapes, threads)

        def twice(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            value = run(inputs)
            return np.stack((value, value), axis=1) if value.ndim == 2 else value

        return twice


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Small networks with every part, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Subject(str(save_small(tmp_path, "film")))


def test_an_engine_that_returns_another_shape_is_refused(subject: Subject) -> None:
    runner = PlainGraphsRunner(subject, CASE, TwoCodes())
    with pytest.raises(BackendError, match=r"twice returns \[1, 2, \d+\] as the code of predictor"):
        runner.run()


def test_ncnn_gives_the_image_of_onnx_runtime(subject: Subject) -> None:
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    images = []
    for engine in (OnnxRuntimeEngine(), NcnnEngine()):
        runner = PlainGraphsRunner(subject, CASE, engine)
        runner.run()
        images.append(runner.image().astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1
