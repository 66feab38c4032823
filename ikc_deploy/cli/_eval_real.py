"""ikc-eval --lr: real LR images, with their HR images or without."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ikc_deploy.cli._ui import print_table, progress_bars
from ikc_deploy.evaluation.no_reference import (
    TABLE_HEADER,
    measure_without_reference,
    open_lr,
    summary_rows,
    table_cells,
    to_csv,
)
from ikc_deploy.evaluation.pairs import evaluate_pairs, open_pairs
from ikc_deploy.evaluation.protocol import EvaluationReport
from ikc_deploy.files import write_atomically
from ikc_deploy.runtime.upscaler import Upscaler


def evaluate_real_pairs(
    open_upscaler: Callable[[], Upscaler],
    scale: int,
    lows: Sequence[Path],
    highs: Sequence[Path],
    border: int | None,
) -> EvaluationReport:
    """Measure real pairs with progress bars; all are checked before the networks are loaded."""
    sets = open_pairs(lows, highs, scale)
    with open_upscaler() as upscaler, progress_bars() as bars:
        return evaluate_pairs(upscaler, sets, border, bars.show)


def evaluate_without_reference(
    open_upscaler: Callable[[], Upscaler],
    lows: Sequence[Path],
    facts: dict[str, Any],
    json_path: Path | None,
    csv_path: Path | None,
) -> None:
    """Measure LR images that have no HR image; print tables and write JSON and CSV.

    Args:
        open_upscaler: Returns the upscaler.
        lows: Folders of LR images.
        facts: What the JSON states about the weights.
        json_path: JSON file of the means; None for none.
        csv_path: CSV file of every image; None for none.
    """
    images = open_lr(lows)
    with open_upscaler() as upscaler, progress_bars() as bars:
        records = measure_without_reference(upscaler, images, bars.show)
    rows = summary_rows(records)
    for name, found in rows.items():
        title = f"{name} (images: {found[0]['images']}), no HR images x{facts['scale']}: "
        print_table(title + facts["weights"], TABLE_HEADER, map(table_cells, found))
    if json_path is not None:
        values = {"protocol": "no-reference", **facts, "datasets": rows}
        write_atomically(json_path, f"{json.dumps(values, indent=2, allow_nan=False)}\n".encode())
    if csv_path is not None:
        write_atomically(csv_path, to_csv(records).encode("utf-8", "surrogateescape"))
