from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy.benchmarks.suite import read_suites
from ikc_deploy.errors import InputError


def test_the_suite_of_the_workbench_is_a_plan(repository: Path) -> None:
    plans = read_suites(repository / "benchmarks" / "suite.toml")
    assert {"loop", "growth", "quality"} <= set(plans)
    loop = plans["loop"]
    assert "--weights random:x4" in loop.command()
    names = [candidate.name for candidate in loop.candidates()]
    assert "reference-loop" in names and "onnxruntime-fp32" in names


def write(folder: Path, text: str) -> Path:
    path = folder / "suite.toml"
    path.write_text(text)
    return path


def test_a_suite_crosses_sizes_batches_and_corrections(tmp_path: Path) -> None:
    text = '[a]\nweights = ["x4-lite"]\nres = ["32", "48x16"]\niters = [0, 1]\nbatch = [1, 4]\n'
    plan = read_suites(write(tmp_path, text))["a"]
    found = [(case.height, case.width, case.batch, case.iters) for case in plan.cases()]
    assert found == [
        (height, width, batch, iters)
        for height, width in ((32, 32), (16, 48))
        for batch in (1, 4)
        for iters in (0, 1)
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "nothing to measure"),
        ("nonsense", "not TOML"),
        ("a = 3", r"\[a\]"),
        ("[a]\nres = ['32']", "without subjects"),
        ("[a]\nweights = ['x4-lite']", "without sizes"),
        ("[a]\nweights = ['x4-lite']\nres = ['32']\nspeed = 3", "unknown setting 'speed'"),
        ("[a]\nweights = ['x4-lite']\nres = 32", "res must be a list"),
        ("[a]\nweights = ['x4-lite']\nres = ['big']", "WIDTHxHEIGHT"),
        ("[a]\nweights = ['x4-lite']\nres = ['32']\ncompare = 'nobody'", "'nobody'"),
        ("[a]\nweights = ['x4-lite']\nres = ['32']\niters = [-1]", "iters must be at least 0"),
    ],
)
def test_a_bad_suite_is_refused_before_anything_is_measured(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_suites(write(tmp_path, text))
    with pytest.raises(InputError, match="no suite"):
        read_suites(tmp_path / "gone.toml")
