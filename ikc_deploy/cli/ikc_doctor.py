"""ikc-doctor: show what works on this machine, and how to fix the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click
from rich.text import Text

from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._option_group import json_option
from ikc_deploy.cli._ui import print_json, print_table, problem, say, status
from ikc_deploy.doctor.examination import DoctorReport, examine
from ikc_deploy.doctor.required_packages import BASE, Command


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@json_option
def main(as_json: bool) -> None:
    """Show versions, execution providers that really load, GPUs, weights, and which commands work.

    The exit code is 0 if images can be upscaled here, even if other parts are missing, else 1.
    """
    with status("trying every execution provider"):
        report = examine()
    if as_json:
        print_json(asdict(report))
    else:
        _print(report)
    raise SystemExit(0 if report.usable else 1)


def _print(report: DoctorReport) -> None:
    title = f"Python {report.python}, ikc-deploy {report.ikc_deploy or 'not installed'}"
    print_table(title, ("package", "version", "needed by"), _packages(report), wrap=True)
    providers = (
        (provider.name, "yes" if provider.loads else "no", provider.reason)
        for provider in report.providers
    )
    header = ("listed", "loads", "why not")
    print_table("ONNX Runtime execution providers", header, providers, wrap=True)
    header = ("backend", "taken", "why")
    print_table("the backend that auto selects", header, _backends(report), wrap=True)
    for line in _lines(report):
        say(line)
    rows = (row for command in report.commands for row in _command_rows(command))
    print_table("commands", ("command", "state", "fixed by"), rows, wrap=True)
    for line in report.problems:
        problem(line)


def _packages(report: DoctorReport) -> Iterator[tuple[str | Text, ...]]:
    for package in report.packages:
        extras = ["everything" if extra == BASE else extra for extra in package.extras]
        version = package.version or Text("not installed", style="dim")
        yield package.name, version, ", ".join(extras)


def _backends(report: DoctorReport) -> Iterator[tuple[str, ...]]:
    found = report.backend
    if found is not None:
        for name, reason in found.passed:
            yield name, "no", reason
        precision = f", computes in {found.precision}" if found.precision else ""
        yield found.name, "yes", f"runs on {found.device}{precision}"


def _lines(report: DoctorReport) -> Iterator[str]:
    for device in report.openvino:
        found = f"{device.product}, computes {', '.join(device.precisions)}"
        yield f"OpenVINO {device.name}: {found if device.loads else device.reason}"
    for gpu in report.gpus:
        memory = f"{gpu.memory_mib} MiB" if gpu.memory_mib else "shared memory"
        yield (
            f"GPU: {gpu.name}, {memory}, compute capability {gpu.compute_capability}, "
            f"driver {gpu.driver}"
        )
    if not report.gpus:
        yield f"GPU: none ({report.no_gpu})"
    yield f"shipped weights: {', '.join(report.weights) or 'none'}"
    yield f"cached bundles in {report.cache}: {', '.join(report.cached) or 'none'}"


def _command_rows(command: Command) -> Iterator[tuple[str | Text, ...]]:
    name = command.name
    if command.ready:
        yield name, Text("ready", style="green"), ""
        name = ""
    for gap in command.gaps:
        purpose = f"for {gap.purpose}: " if gap.purpose else ""
        yield name, f"{purpose}needs {', '.join(gap.missing)}", gap.fix
        name = ""


if __name__ == "__main__":
    main()
