"""Commands without options do what the library does without arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ikc_deploy import Bundle
from ikc_deploy.benchmarks.interleaved import TimingBudget
from ikc_deploy.cli import ikc_bench, ikc_eval, ikc_export, ikc_offline
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.export.export_settings import ExportSettings, SingleFileSettings, UsrnetExport
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.offline.methods import METHODS
from tests.cli.running import invoke
from tests.samples import photo


class Reached(Exception):
    """The library was called; nothing more is needed."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The arguments with which the library was called."""
    made: list[tuple[Any, ...]] = []

    def reached(*arguments: Any, **named: Any) -> None:
        made.append((*arguments, *named.values()))
        raise Reached

    for place in (
        "ikc_deploy.export.exporter.export_bundle",
        "ikc_deploy.export.usrnet_graph.add_usrnet",
        "ikc_deploy.export.single_file.export_single_file",
        "ikc_deploy.cli.ikc_eval.evaluate",
        "ikc_deploy.cli.ikc_bench.run_suite",
        "ikc_deploy.offline.job.plan",
    ):
        monkeypatch.setattr(place, reached)
    return made


def test_exports(small_checkpoint: Path, small_bundle: Bundle, calls: list[Any]) -> None:
    weights = ("--weights", small_checkpoint)
    invoke(ikc_export.main, *weights)
    invoke(ikc_export.main, "--bundle", small_bundle.path, "--usrnet", "shipped")
    invoke(ikc_export.main, *weights, "--single", small_checkpoint.parent / "x.onnx")
    settings = [
        value
        for call in calls
        for value in call
        if isinstance(value, ExportSettings | UsrnetExport | SingleFileSettings)
    ]
    assert settings == [ExportSettings(), UsrnetExport(), SingleFileSettings()]


def test_evaluations(small_bundle: Bundle, tmp_path: Path, calls: list[Any]) -> None:
    write_rgb(photo(32, 32), tmp_path / "a.png")
    invoke(ikc_eval.main, "--hr", tmp_path, "--bundle", small_bundle.path)
    ((upscaler, _, protocol, _),) = calls
    assert protocol.degradation == Degradation()
    assert (protocol.title, upscaler.iters) == ("Gaussian8", small_bundle.loop.iters)


def test_benchmarks(small_bundle: Bundle, calls: list[Any]) -> None:
    invoke(ikc_bench.main, "--bundle", small_bundle.path)
    (suite, _) = calls[0]
    plain = type(suite)(suite.subjects, suite.sizes)
    assert suite == plain and suite.timing_budget == TimingBudget()


@pytest.mark.parametrize("name", METHODS)
def test_offline_methods(name: str, tmp_path: Path, calls: list[Any]) -> None:
    write_rgb(np.zeros((64, 64, 3), np.uint8), tmp_path / "a.png")
    options = ("--method", name, "--scale", 2, "--out", tmp_path / "out")
    invoke(ikc_offline.main, tmp_path / "a.png", *options)
    (_, scale, method, settings, *_) = calls[0]
    assert (scale, method) == (2, METHODS[name])
    assert settings == method.settings()
