"""ikc-doctor: show what works on this machine, and how to fix the rest."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ikc_deploy.cli._common import HELP, err_console, out_console, reports_errors
from ikc_deploy.doctor import BASE, Command, DoctorReport, examine


@click.command(context_settings=HELP)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@reports_errors
def main(as_json: bool) -> None:
    """Show versions, execution providers that really load, GPUs, weights, and which commands work.

    The exit code is 0 if images can be upscaled here, even if other parts are missing, else 1.
    """
    with err_console.status("trying every execution provider"):
        report = examine()
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        _print(report)
    raise SystemExit(0 if report.usable else 1)


def _print(report: DoctorReport) -> None:
    out_console.print(_packages(report), _providers(report))
    _print_lines(report)
    out_console.print(_commands(report.commands))
    for problem in report.problems:
        out_console.print(f"[bold red]problem:[/] {escape(problem)}", soft_wrap=True)


def _packages(report: DoctorReport) -> Table:
    table = _table(f"Python {report.python}, ikc-deploy {report.ikc_deploy or 'not installed'}")
    for column in ("package", "version", "needed by"):
        table.add_column(column)
    for package in report.packages:
        extras = ["everything" if extra == BASE else extra for extra in package.extras]
        table.add_row(package.name, package.version or "[dim]not installed[/]", ", ".join(extras))
    return table


def _providers(report: DoctorReport) -> Table:
    table = _table("ONNX Runtime execution providers")
    for column in ("listed", "loads", "why not"):
        table.add_column(column)
    for provider in report.providers:
        table.add_row(provider.name, "yes" if provider.loads else "no", escape(provider.reason))
    return table


def _print_lines(report: DoctorReport) -> None:
    for device in report.openvino:
        found = f"{device.product}, computes {', '.join(device.precisions)}"
        _print_fact(f"OpenVINO {device.name}: {found if device.loads else device.reason}")
    for gpu in report.gpus:
        memory = f"{gpu.memory_mib} MiB" if gpu.memory_mib else "shared memory"
        _print_fact(
            f"GPU: {gpu.name}, {memory}, compute capability {gpu.compute_capability}, "
            f"driver {gpu.driver}"
        )
    if not report.gpus:
        _print_fact(f"GPU: none ({report.no_gpu})")
    _print_fact(f"shipped weights: {', '.join(report.weights) or 'none'}")
    _print_fact(f"cached bundles in {report.cache}: {', '.join(report.cached) or 'none'}")


def _print_fact(line: str) -> None:
    out_console.print(line, soft_wrap=True, highlight=False, markup=False)


def _commands(commands: tuple[Command, ...]) -> Table:
    table = _table("commands")
    for column in ("command", "state", "fixed by"):
        table.add_column(column, overflow="fold")
    for command in commands:
        name = command.name
        if command.ready:
            table.add_row(name, "[green]ready[/]", "")
            name = ""
        for gap in command.gaps:
            purpose = f"for {gap.purpose}: " if gap.purpose else ""
            table.add_row(name, f"{purpose}needs {', '.join(gap.missing)}", escape(gap.fix))
            name = ""
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


if __name__ == "__main__":
    main()
