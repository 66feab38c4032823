"""Every record as a line of CSV, for spreadsheets and data frames."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Final

from ikc_deploy.evaluation.protocol import EvaluationReport
from ikc_deploy.evaluation.records import Record
from ikc_deploy.reporting.tables import csv_text

COLUMNS: Final = ("weights", "noise", "jpeg", *(field.name for field in fields(Record)))
"""Column names; the first three are the same on all lines, so files of several runs can be
joined."""


def to_csv(report: EvaluationReport) -> str:
    """Return CSV: a header, and a line for each image, blur and method; empty where unknown."""
    degradation = report.protocol.degradation
    shared = {
        "weights": report.manifest.name,
        "noise": degradation.noise,
        "jpeg": degradation.jpeg,
    }
    return csv_text(COLUMNS, (shared | asdict(record) for record in report.records))
