"""ikc-upscale --ray: options, progress and report of a batch on many actors."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ikc_deploy.batch.settings import BatchSettings, ClusterSettings, UpscalerSettings
from ikc_deploy.cli._common import err_console, note_skipped, say, warn
from ikc_deploy.cli._upscale_video import VideoOptions
from ikc_deploy.errors import InputError, MissingExtraError
from ikc_deploy.imaging.image_files import Upscaled

if TYPE_CHECKING:
    from ikc_deploy.batch.run import BatchReport, Joined

_Command = TypeVar("_Command", bound=Callable[..., Any])

_VIDEO: Final = {"--codec", "--crf"}
"""Video options that apply to many clips."""


@dataclass(frozen=True)
class RayOptions:
    """The Ray options of a command line; None and False for those not given."""

    ray: bool
    address: str | None
    actors: int | None

    def given(self) -> bool:
        """Return whether `--ray` is given; raise `InputError` if only its companions are."""
        if not self.ray and (self.address or self.actors):
            raise InputError("--address and --actors belong to --ray; give --ray too")
        return self.ray


def ray_options(command: _Command) -> _Command:
    """Add the options for Ray to a command, as one parameter `ray: RayOptions`."""

    @wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        ray = RayOptions(**{each.name: kwargs.pop(each.name) for each in fields(RayOptions)})
        return command(*args, **kwargs, ray=ray)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return cast("_Command", gathered)


_OPTIONS: Final = (
    click.option(
        "--ray",
        is_flag=True,
        help="Upscale images and clips into the folder OUT on many actors; repeat to add what is "
        "missing.",
    ),
    click.option(
        "--address",
        help="Address of the Ray cluster, or auto for the one running on this machine.  "
        "[default: a new one for this run]",
    ),
    click.option(
        "--actors",
        type=click.IntRange(min=1),
        help="Number of actors; each uses one GPU or --threads cores.  [default: as many as fit]",
    ),
)


def upscale_batch(
    inputs: tuple[Path, ...],
    out: Path | None,
    ray: RayOptions,
    video: VideoOptions,
    open_settings: Callable[[], UpscalerSettings],
    show: Callable[[Upscaled, bool], None],
    as_json: bool,
    max_pixels: int | None,
) -> None:
    """Run a batch with one progress bar and a line for each output.

    Raises `InputError` that lists everything that failed, and what `run_batch` raises.
    """
    refused = [name for name in video.given() if name not in _VIDEO]
    if refused:
        raise InputError(f"{', '.join(refused)}: only for a single clip or stream; leave out --ray")
    if not inputs or out is None:
        raise InputError("name the inputs, and the folder of the outputs with -o OUT")
    try:
        from ikc_deploy.batch.cluster import require_ray
        from ikc_deploy.batch.plan import BATCH_SUFFIXES
        from ikc_deploy.batch.run import Joined, run_batch
        from ikc_deploy.video.encoders import AUTO, EncoderSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "av", "ray", "--ray") from error
    require_ray()

    def on_output(done: Upscaled | Joined) -> None:
        if isinstance(done, Joined):
            _show_clip(done, as_json)
        else:
            show(done, as_json)

    encoder = EncoderSettings(video.codec or AUTO, video.crf)
    cluster = ClusterSettings(ray.address, ray.actors)
    settings = BatchSettings(inputs, out, open_settings(), encoder, cluster, max_pixels)
    with _bar() as progress:
        report = run_batch(settings, on_output, progress)
    note_skipped(inputs, BATCH_SUFFIXES)
    _conclude(report, as_json)


@contextmanager
def _bar() -> Generator[Callable[[int, int], None], None, None]:
    """Show a bar on standard error if it is a terminal; yield a function that takes the counts."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=err_console,
        transient=True,
        redirect_stdout=False,
        disable=not err_console.is_terminal,
    ) as bars:
        task = bars.add_task("frames", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _show_clip(done: Joined, as_json: bool) -> None:
    for warning in done.warnings:
        warn(f"{done.source.name}: {warning}")
    facts = {"input": str(done.source), "output": str(done.target), "frames": done.frames}
    say(json.dumps(facts) if as_json else f"{done.target}: {done.frames} frames")


def _conclude(report: BatchReport, as_json: bool) -> None:
    if report.kept and not as_json:
        click.echo(f"{report.kept} were complete already")
    if report.failures:
        total = report.made + report.kept + len(report.failures)
        heading = (
            f"{len(report.failures)} of {total} outputs failed; a second run retries only these:"
        )
        raise InputError("\n".join([heading, *report.failures]))
