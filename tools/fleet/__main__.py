"""Simulate the fleets of a TOML file and fill in docs/scale.md: `python -m tools.fleet`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._ui import note
from ikc_deploy.cli._value_types import PATH
from ikc_deploy.files import write_atomically
from ikc_deploy.reporting.tables import Table, markdown_table
from tools.fleet.fleet_simulation import SECONDS_A_DAY, FleetReport, TaskCost, simulate_fleet
from tools.fleet.scenarios import FleetSettings, MachineKind, read_fleets, read_service_times
from tools.fleet.service_times import PHOTO

_FRAMES_A_SECOND: Final = 25
_MIN_TASKS, _TASKS_A_WORKER = 2_000, 30
_BLOCK: Final = re.compile(r"(<!-- fleet (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@click.command(context_settings=HELP)
@click.option("--fleets", type=PATH, default=Path("tools/fleet/fleets.toml"), show_default=True)
@click.option(
    "--times",
    type=PATH,
    default=Path("benchmarks/results/service-times.json"),
    show_default=True,
    help="Measured service times.",
)
@click.option("--document", type=PATH, default=Path("docs/scale.md"), show_default=True)
@reports_errors
def main(fleets: Path, times: Path, document: Path) -> None:
    """Simulate all fleets; replace the blocks `fleet NAME` of the document."""
    settings, kinds = read_fleets(fleets)
    measured = read_service_times(times)
    blocks = {
        "times": _times(settings, kinds, measured),
        "video": _simulated(settings, kinds, measured, "frame"),
        "photos": _simulated(settings, kinds, measured, "photo"),
    }
    filled = _BLOCK.sub(lambda match: match[1] + blocks[match[2]] + match[3], document.read_text())
    write_atomically(document, filled.encode())


def _times(settings: FleetSettings, kinds: list[MachineKind], measured: dict[str, Any]) -> str:
    machine = measured["machine"]
    rows = [
        (name, *(f"{1e3 * measured[name][stage]:.1f}" for stage in ("decode", "upscale", "encode")))
        for name in ("photo", "frame")
    ]
    table = Table("times", ("task", "decode ms", "upscale ms", "encode ms"), tuple(rows))
    kinds_table = Table(
        "kinds",
        ("worker", "seconds a frame", "price an hour", "origin of the figures"),
        tuple(
            (
                kind.name,
                f"{settings.chunk(kind, measured['frame']).seconds / settings.frames_a_chunk:.3g}",
                f"{kind.price_an_hour:g}",
                kind.source,
            )
            for kind in kinds
        ),
    )
    header = f"One thread of {machine['cpu']}, {measured['weights']}:\n\n"
    return f"{header}{markdown_table(table)}\n{markdown_table(kinds_table)}"


def _simulated(
    settings: FleetSettings, kinds: list[MachineKind], measured: dict[str, Any], what: str
) -> str:
    video = what == "frame"
    columns = (
        "workers",
        "hours of video a day" if video else "photos a day",
        "limited by",
        "workers busy %",
        "wait p50 s",
        "wait p99 s",
        "deaths a day",
        "price of 1,000 frames" if video else "price of 1,000 photos",
    )
    rows = [row for kind in kinds for row in _rows(settings, kind, measured[what], video)]
    return markdown_table(Table(what, ("worker", *columns), tuple(rows)))


def _rows(
    settings: FleetSettings, kind: MachineKind, measured: dict[str, Any], video: bool
) -> Iterator[tuple[str, ...]]:
    pixels = PHOTO[0] * PHOTO[1]
    task = settings.chunk(kind, measured) if video else settings.photo(kind, measured, pixels)
    frames = settings.frames_a_chunk if video else 1
    for workers in settings.workers:
        note(f"{kind.name}: {workers} workers")
        backlog, busy = _both(settings, kind, workers, task)
        frames_a_day = frames * backlog.tasks_a_day
        price = 24 * kind.price_an_hour * workers / frames_a_day * 1_000
        hours = frames_a_day / _FRAMES_A_SECOND / 3_600
        yield (
            kind.name,
            f"{workers:,}",
            f"{hours:,.3g}" if video else f"{frames_a_day:,.0f}",
            backlog.bottleneck,
            f"{100 * backlog.busy['workers']:.0f}",
            f"{busy.wait(50):.3g}",
            f"{busy.wait(99):.3g}",
            f"{backlog.deaths / backlog.seconds * SECONDS_A_DAY:,.0f}",
            f"{price:.3g}",
        )


def _both(
    settings: FleetSettings, kind: MachineKind, workers: int, task: TaskCost
) -> tuple[FleetReport, FleetReport]:
    """Simulate a backlog, and tasks that arrive at the load of the settings."""
    fleet = settings.fleet(workers, kind)
    tasks = max(_MIN_TASKS, _TASKS_A_WORKER * workers)
    backlog = simulate_fleet(fleet, task, tasks, math.inf)
    # What the whole fleet can take, not the workers alone: else the queue grows for ever.
    possible = backlog.tasks / backlog.seconds * task.seconds / workers
    return backlog, simulate_fleet(fleet, task, tasks, settings.load * min(1.0, possible))


if __name__ == "__main__":
    main()
