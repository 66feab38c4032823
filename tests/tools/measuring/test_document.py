from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy.errors import InputError
from tests.benchmarks.reports import report
from tools.measuring.document import fill

TEXT = "before\n<!-- {} loop -->\nold\n<!-- end -->\nafter\n"


@pytest.fixture
def workbench(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "loop.json").write_text(report().to_json())
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("machine", "200 GFLOP/s"),
        ("latency", "| 64x64 | 7 | 1 | onnxruntime-fp32 |"),
        ("ratios", "| onnxruntime-fp32 |  | 0.50 |"),
        ("growth", "onnxruntime-fp32: time grows as LR pixels to the power of 1.00."),
        ("quality", "30.88"),
    ],
)
def test_blocks_are_made_anew_and_all_else_stays(workbench: Path, kind: str, words: str) -> None:
    filled = fill(TEXT.format(kind), workbench)
    assert words in filled.replace("\\", "") and "old" not in filled
    assert filled.startswith(f"before\n<!-- {kind} loop -->\n")
    assert filled.endswith("<!-- end -->\nafter\n")
    assert fill(filled, workbench) == filled


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    assert "Not measured yet: there is no results/loop.json." in fill(
        TEXT.format("latency"), tmp_path
    )


def test_unknown_blocks_are_refused(workbench: Path) -> None:
    with pytest.raises(InputError, match="unknown block 'nonsense'"):
        fill(TEXT.format("nonsense"), workbench)


def test_the_document_names_only_blocks_that_exist(repository: Path, tmp_path: Path) -> None:
    text = (repository / "docs" / "performance.md").read_text()
    # Predictions export networks; their table has a test of its own.
    without = text.replace("<!-- prediction", "<!-- machine")
    assert "Not measured yet" in fill(without, tmp_path)
