"""ikc-bench: what a frame costs on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ikc_deploy.benchmarks.case import Case
from ikc_deploy.benchmarks.latency import CaseResult, measure_case
from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.bundle import Bundle
from ikc_deploy.cli.bundles import bundle_options, open_bundle
from ikc_deploy.cli.common import HELP, err_console, out_console, reports_errors
from ikc_deploy.errors import BackendError, InputError
from ikc_deploy.files import write_atomically
from ikc_deploy.runtime.backends import BACKENDS
from ikc_deploy.runtime.upscaler import DEFAULT_ITERS

_STDOUT = Path("-")


@click.command(context_settings=HELP)
@click.option(
    "--iters",
    multiple=True,
    type=int,
    default=(DEFAULT_ITERS,),
    show_default=True,
    help="Corrections after the predictor (repeatable).",
)
@click.option(
    "--res",
    "sizes",
    multiple=True,
    default=("256",),
    show_default=True,
    help="Size of the LR frame in pixels, SIDE or WIDTHxHEIGHT (repeatable).",
)
@bundle_options
@click.option(
    "--fp16/--fp32",
    "half",
    default=None,
    help="Precision of the convolutions; float32 unless --fp16 is given.",
)
@click.option(
    "--backend", default="auto", show_default=True, help=f"auto, or one of: {', '.join(BACKENDS)}."
)
@click.option("--runs", type=int, help="Timed calls.  [default: what fits in a minute, 3 to 200]")
@click.option("--threads", type=int, default=0, show_default=True, help="CPU cores; 0 for all.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    help="Write the figures to this file too; - prints them instead of the table.",
)
@reports_errors
def main(
    iters: tuple[int, ...],
    sizes: tuple[str, ...],
    weights: str | None,
    folder: Path | None,
    half: bool | None,
    backend: str,
    runs: int | None,
    threads: int,
    json_path: Path | None,
) -> None:
    """Measure latency, frames per second, stages and peak memory of blind super-resolution.

    Frames are random with the statistics of photographs. Every combination of --res and --iters
    is measured in turn.
    """
    if json_path is not None and json_path.is_dir():
        raise InputError(f"--json '{json_path}' is a folder; give a file in it, or -")
    cases = [
        Case(*_parse_size(size), count, backend, threads, runs) for size in sizes for count in iters
    ]
    # Before any work of our own, for the load that was there already.
    machine = describe_machine()
    results: list[CaseResult] = []
    for result in _measure(_bundle(weights, folder, half), cases):
        results.append(result)
        # Written after every case, so that an interrupted bench keeps what it has.
        if json_path not in (None, _STDOUT):
            write_atomically(json_path, f"{_report(machine, results)}\n".encode())
    if json_path == _STDOUT:
        click.echo(_report(machine, results))
    else:
        _print(machine, results)


def _parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "SIDE" or "WIDTHxHEIGHT"."""
    match = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text.strip().lower())
    if match is None:
        raise InputError(
            f"--res takes SIDE or WIDTHxHEIGHT in pixels, as 256 or 320x180, got '{text}'"
        )
    width = int(match[1])
    return int(match[2] or width), width


def _bundle(weights: str | None, folder: Path | None, half: bool | None) -> Bundle:
    bundle = open_bundle(weights, folder, "fp16" if half else "fp32")
    if (
        folder is not None
        and half is not None
        and bundle.manifest.precision != ("fp16" if half else "fp32")
    ):
        raise InputError(
            f"'{folder}' is an {bundle.manifest.precision} bundle; leave --fp16/--fp32 out, or "
            "export it again in the other precision"
        )
    return bundle


def _measure(bundle: Bundle, cases: list[Case]) -> Iterable[CaseResult]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}"),
    )
    # Off a terminal even a transient bar leaves an empty line behind.
    quiet = not err_console.is_terminal
    with Progress(*columns, console=err_console, transient=True, disable=quiet) as bars:
        for case in cases:
            label = f"{case.width}x{case.height}, iters {case.iters}"
            task = bars.add_task(label, total=case.runs, last="warming up")

            def show(done: int, total: int, ms: float, task: Any = task) -> None:
                bars.update(task, completed=done, total=total, last=f"{ms:.1f} ms")

            try:
                result = measure_case(bundle, case, show)
            except MemoryError as error:
                raise BackendError(f"not enough memory for {label}; use a smaller --res") from error
            bars.remove_task(task)
            err_console.print(f"{label}: {result.latency_ms.p50:.1f} ms, {result.runs} runs")
            yield result


def _report(machine: dict[str, Any], results: list[CaseResult]) -> str:
    return json.dumps(
        {"machine": machine, "results": [asdict(result) for result in results]}, indent=2
    )


def _print(machine: dict[str, Any], results: list[CaseResult]) -> None:
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    versions = {"python": machine["python"]} | machine["packages"]
    for line in (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {gpus}",
        f"{machine['os']}, load {machine['load']}",
        ", ".join(f"{name} {version or '-'}" for name, version in versions.items()),
    ):
        out_console.print(line, soft_wrap=True, highlight=False, markup=False)
    out_console.print(_table(results))


def _table(results: list[CaseResult]) -> Table:
    first = results[0]
    # What all rows share is in the title, so that the table fits 80 columns.
    title = f"{first.weights}, {first.precision}, {first.backend}, P/F/C: share of each network"
    table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for column in ("iters", "LR", "SR", "p50 ms", "p90 ms", "p99 ms", "fps", "P/F/C %", "MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        times, peak = result.latency_ms, result.peak_memory_mib
        shares = "/".join(f"{100 * ms / times.mean:.0f}" for ms in result.stages_ms.values())
        table.add_row(
            str(result.iters),
            _size(result.lr),
            _size(result.sr),
            *(f"{ms:.1f}" for ms in (times.p50, times.p90, times.p99)),
            f"{result.fps:.3g}",
            shares,
            "-" if peak is None else f"{peak:.0f}",
        )
    return table


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]}x{shape[0]}"


if __name__ == "__main__":
    main()
