"""A report as one HTML page that loads nothing: style, tables and charts are inside."""

from __future__ import annotations

from html import escape
from typing import Final

from ikc_deploy.benchmarks.render.report_tables import (
    latency_table,
    machine_lines,
    quality_table,
    ratio_table,
    skipped_lines,
)
from ikc_deploy.benchmarks.render.svg_charts import latency_chart, quality_chart, stage_chart
from ikc_deploy.benchmarks.report import BenchmarkReport
from ikc_deploy.reporting.tables import Table

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
svg { width: 100%; min-width: 36rem; max-width: 62rem; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.82rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding: 0.8rem 0 0.3rem; }
th, td { padding: 0.2rem 0.5rem; border-bottom: 1px solid #e4e4e4; text-align: right;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
code { overflow-wrap: anywhere; }
"""


def to_html(report: BenchmarkReport) -> str:
    """Return the report as an HTML page.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    subjects = list(dict.fromkeys(result.subject for result in report.results))
    parts = [
        "<h1>ikc-bench</h1>",
        f"<p><code>{escape(report.command)}</code></p>",
        _section("Machine", _list(machine_lines(report))),
        _section("Latency by size", _wide(latency_chart(report))),
    ]
    for subject in subjects:
        parts.append(_section(f"{subject}: figures", _table(latency_table(report, subject))))
        parts.append(
            _section(f"{subject}: where the time goes", _wide(stage_chart(report, subject)))
        )
    ratios = [ratio_table(result) for result in report.results if len(result.measurements) > 1]
    if ratios:
        parts.append(_section("Ratios pair by pair", *map(_table, ratios)))
    if report.qualities:
        parts.append(
            _section(
                "Quality against speed", _wide(quality_chart(report)), _table(quality_table(report))
            )
        )
    skipped = skipped_lines(report)
    if skipped:
        parts.append(_section("Did not run", _list(skipped)))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>ikc-bench</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _list(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _wide(content: str) -> str:
    """Wrap content that scrolls horizontally in a narrow window, so its text stays readable."""
    return f'<div class="wide">{content}</div>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return _wide(
        f"<table><caption>{escape(table.title)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
