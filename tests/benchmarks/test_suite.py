from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy.benchmarks.suite import read_suites
from ikc_deploy.errors import CheckpointError, InputError


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
        ("nonsense", "not valid TOML"),
        ("a = 3", r"\[a\]"),
        ("[a]\nres = ['32']", "without subjects"),
        ("[a]\nweights = ['x4-lite']", "without sizes"),
        ("[a]\nweights = ['x4-lite']\nres = ['32']\nspeed = 3", "unknown settings speed"),
        ("[a]\nweights = ['x4-lite']\nres = 32", "res must be a list"),
        ("[a]\nweights = 'x4-lite'", "weights must be a list"),
        ("[a]\nweights = [3]", r"weights\[0\] must be a text"),
        ("[a]\niters = ['a']", r"iters\[0\] must be a whole number"),
        ("[a]\nthreads = 'a'", "threads must be a whole number"),
        ("[a]\ncompare = 3", "compare must be a text"),
        ("[a]\nmemory = 'no'", "memory must be true or false"),
        ("[a]\nquality = 3", "quality must be a text"),
        ("[a]\nwarmup = nan", "warmup must be a finite number"),
        ("['../a']\nweights = ['x4-lite']", "not the name of a file"),
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
    with pytest.raises(InputError, match="no suite file"):
        read_suites(tmp_path / "gone.toml")


def test_missing_weights_and_images_are_noticed_before_anything_is_measured(tmp_path: Path) -> None:
    text = "[a]\nweights = ['gone']\nres = ['32']"
    with pytest.raises(CheckpointError, match="unknown weights 'gone'"):
        read_suites(write(tmp_path, text))["a"].check()
    text = "[a]\nweights = ['x4-lite']\nres = ['32']\nquality = 'gone'"
    with pytest.raises(InputError, match="gone"):
        read_suites(write(tmp_path, text))["a"].check()
