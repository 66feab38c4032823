"""Fleets of a TOML file, and what a task costs on each of their machines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ikc_deploy.errors import InputError
from ikc_deploy.parsing import read_toml
from ikc_deploy.typed_values import SettingError, check_names, read_settings
from tools.fleet.fleet_simulation import Fleet, TaskCost
from tools.fleet.service_times import FRAME

_PIXELS_OF_THE_GPU_FIGURE: Final = 256 * 256
MEGABYTE: Final = 1e6


@dataclass(frozen=True)
class MachineKind:
    """A kind of worker, and where its times come from."""

    name: str
    """Name in the tables."""
    price_an_hour: float
    """Price of one worker for an hour, in any currency."""
    worker_megabytes: float
    """Megabytes a second that one worker can move."""
    coding_share: float
    """Time of decode and encode as a share of the measured core's."""
    source: str
    """Origin of the figures."""
    upscale_share: float | None = None
    """Time of upscaling as a share of the measured core's; None if `upscale_ms_256` is given."""
    upscale_ms_256: float | None = None
    """Milliseconds for an LR frame of 256x256 pixels; other sizes in proportion to their pixels."""

    def __post_init__(self) -> None:
        """Require one of the two statements of the time of upscaling."""
        if (self.upscale_share is None) == (self.upscale_ms_256 is None):
            raise SettingError(f"{self.name}: give either upscale_share or upscale_ms_256")

    def frame_seconds(self, measured: dict[str, Any], pixels: int) -> float:
        """Return the seconds of one frame: upscaling, and the coding if it is not hidden by it.

        On a GPU (`upscale_ms_256`), decode and encode run beside it, so the longer one counts.

        Args:
            measured: Seconds of "decode", "upscale" and "encode" on the measured core.
            pixels: LR pixels of the frame.
        """
        coding = self.coding_share * (measured["decode"] + measured["encode"])
        if self.upscale_ms_256 is None:
            return float(coding + (self.upscale_share or 0) * measured["upscale"])
        return float(max(coding, self.upscale_ms_256 / 1e3 * pixels / _PIXELS_OF_THE_GPU_FIGURE))


@dataclass(frozen=True)
class FleetSettings:
    """What all fleets share."""

    workers: tuple[int, ...]
    """Numbers of workers to simulate."""
    store_megabytes: float
    """Megabytes a second that the store serves to all workers together."""
    dispatch_rate: float
    """Tasks a second that the scheduler can hand out."""
    failures_a_day: float
    """Deaths of a worker in a day of work."""
    restart_seconds: float
    """Seconds from the death of a worker to its next task."""
    variation: float
    """Coefficient of variation of the work of a task."""
    frames_a_chunk: int
    """Frames of a task of video."""
    load: float
    """Arrivals in the table of waits, as a share of what the workers alone can finish."""

    def fleet(self, workers: int, kind: MachineKind) -> Fleet:
        """Return the fleet of a number of workers of a kind."""
        return Fleet(
            workers,
            kind.worker_megabytes * MEGABYTE,
            self.store_megabytes * MEGABYTE,
            self.dispatch_rate,
            self.failures_a_day,
            self.restart_seconds,
        )

    def chunk(self, kind: MachineKind, measured: dict[str, Any]) -> TaskCost:
        """Return the cost of a chunk of 1080p video on a kind of machine."""
        seconds = kind.frame_seconds(measured, FRAME[0] * FRAME[1])
        count = self.frames_a_chunk
        return TaskCost(count * seconds, self.variation, count * sum(measured["bytes"]))

    def photo(self, kind: MachineKind, measured: dict[str, Any], pixels: int) -> TaskCost:
        """Return the cost of a photo of `pixels` LR pixels on a kind of machine."""
        seconds = kind.frame_seconds(measured, pixels)
        return TaskCost(seconds, self.variation, sum(measured["bytes"]))


def read_fleets(path: Path) -> tuple[FleetSettings, list[MachineKind]]:
    """Read the fleets of a TOML file: [fleet], and [machine.*] for each kind.

    Raises:
        InputError: The file cannot be read, or a setting is missing or wrong.
    """
    try:
        values = read_toml(path, "list of fleets")
        check_names(values, {"fleet", "machine"})
        kinds = [read_settings(MachineKind, table) for table in values.get("machine", {}).values()]
        return read_settings(FleetSettings, values.get("fleet", {})), kinds
    except SettingError as error:
        raise InputError(f"'{path}': {error}") from error


def read_service_times(path: Path) -> dict[str, Any]:
    """Return the report that `tools.fleet.service_times` wrote.

    Raises:
        InputError: There is none.
    """
    if not path.is_file():
        raise InputError(f"'{path}' does not exist; run python -m tools.fleet.service_times {path}")
    report: dict[str, Any] = json.loads(path.read_text())
    return report
