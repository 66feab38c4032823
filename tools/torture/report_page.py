"""The table of a campaign in docs/reliability.md, so that no figure is copied by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ikc_deploy.reporting.tables import Table, markdown_table

_BLOCK: Final = re.compile(r"(<!-- torture -->\n).*?(<!-- end -->)", re.DOTALL)


NOT_RUN: Final = "Not run yet: there is no benchmarks/results/torture.json.\n"


def filled(text: str, report: Mapping[str, Any] | None) -> str:
    """Return a document with the summary of a report in its block; None if there is no report."""
    content = NOT_RUN if report is None else summary(report)
    return _BLOCK.sub(lambda match: match[1] + content + match[2], text)


def summary(report: Mapping[str, Any]) -> str:
    """Return the machine, the table of trials by kind and outcome, and the faults."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    rows = [
        (name, str(sum(kind["outcomes"].values())), _outcomes(kind["outcomes"]))
        for name, kind in report["kinds"].items()
    ]
    lines = [
        f"- {machine['cpu']}, {machine['cores']} cores, {machine['os']}\n",
        f"- Python {machine['python']}, {versions}\n",
        f"- seed {report['seed']}, {report['seconds']:g} seconds\n",
        f"- damaged files read: {damaged_files(report)}; "
        f"disturbed runs: {disturbed_runs(report)}; faults: {len(report['faults'])}\n",
        *(f"- not run: {reason}\n" for reason in report["not_run"]),
        "\n",
        markdown_table(Table("torture", ("kind", "tried", "outcomes"), tuple(rows))),
    ]
    return "".join(lines)


def damaged_files(report: Mapping[str, Any]) -> int:
    """Return how many damaged files the readers were given."""
    return sum(
        sum(kind["outcomes"].values())
        for name, kind in report["kinds"].items()
        if name.startswith("read ")
    )


def disturbed_runs(report: Mapping[str, Any]) -> int:
    """Return how many runs of commands were disturbed."""
    return sum(
        sum(kind["outcomes"].values()) for name, kind in report["kinds"].items() if "," in name
    )


def _outcomes(outcomes: Mapping[str, int]) -> str:
    return "; ".join(f"{outcome}: {number}" for outcome, number in outcomes.items())
