"""Run the campaign: `python -m tools.torture --json benchmarks/results/torture.json`."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._ui import note
from ikc_deploy.cli._value_types import OUTPUT_FILE
from ikc_deploy.files import write_atomically
from tools.torture.campaign import run_campaign
from tools.torture.report_page import filled


@click.command(context_settings=HELP)
@click.option("--seconds", type=float, default=600, show_default=True, help="Time for the trials.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all damage.")
@click.option(
    "--only",
    multiple=True,
    default=("*",),
    help="Run only kinds that match this pattern, such as 'read *' or '*, kill' (repeatable).",
)
@click.option("--json", "path", type=OUTPUT_FILE, help="JSON file for the report.")
@click.option("--document", type=OUTPUT_FILE, help="Markdown file whose block is filled.")
@reports_errors
def main(
    seconds: float, seed: int, only: tuple[str, ...], path: Path | None, document: Path | None
) -> None:
    """Damage inputs and disturb commands for a time; exit with 1 if a promise was broken."""
    with TemporaryDirectory(prefix="torture-") as folder:
        report = run_campaign(Path(folder) / "campaign", seed, seconds, only, note)
    if path is not None:
        write_atomically(path, f"{json.dumps(report, indent=2)}\n".encode())
    if document is not None:
        write_atomically(document, filled(document.read_text(), report).encode())
    for fault in report["faults"]:
        note(f"FAULT {fault['seed']}: {fault['what']}")
    note(f"{len(report['faults'])} faults")
    if report["faults"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
