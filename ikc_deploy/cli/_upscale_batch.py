"""ikc-upscale --ray: options, progress and report of a batch on many actors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ikc_deploy.batch.settings import BatchSettings, ClusterSettings
from ikc_deploy.cli._option_group import given_options
from ikc_deploy.cli._ui import counted, note_skipped, progress_bars, result, say, warn
from ikc_deploy.cli._upscale_output import OutputOptions
from ikc_deploy.cli._upscale_result import show_image
from ikc_deploy.cli._upscale_video import VideoOptions
from ikc_deploy.cli._upscaler_choice import UpscalerChoice
from ikc_deploy.errors import InputError, needs_extra
from ikc_deploy.imaging.file_upscaling import Upscaled
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.option_fields import Option
from ikc_deploy.video.encoder_settings import EncoderSettings

if TYPE_CHECKING:
    from ikc_deploy.batch.run import BatchReport, Joined


@dataclass(frozen=True)
class RayOptions:
    """The Ray options of a command line."""

    ray: Annotated[
        bool,
        Option(
            "Upscale images and clips into the folder OUT on many actors; repeat to add what is "
            "missing.",
            heading="Distributed",
        ),
    ] = False
    cluster: ClusterSettings = field(default_factory=ClusterSettings)

    def given(self) -> bool:
        """Return whether `--ray` is given; raise `InputError` if only its companions are."""
        others = given_options(ClusterSettings)
        if others and not self.ray:
            raise InputError(f"{', '.join(others)} belong to --ray; give --ray too")
        return self.ray


def upscale_batch(
    inputs: tuple[Path, ...],
    output: OutputOptions,
    choice: UpscalerChoice,
    postprocessing: Postprocessing,
    video: VideoOptions,
    ray: RayOptions,
) -> None:
    """Run a batch with one progress bar and a line for each output.

    Raises `InputError` that lists everything that failed, and what `run_batch` raises.
    """
    allowed = given_options(EncoderSettings)
    refused = [name for name in given_options(VideoOptions) if name not in allowed]
    if refused:
        raise InputError(f"{', '.join(refused)}: only for a single clip or stream; leave out --ray")
    if not inputs or output.out is None:
        raise InputError("name the inputs, and the folder of the outputs with -o OUT")
    with needs_extra("ray", "--ray"):
        from ikc_deploy.batch.cluster import require_ray
        from ikc_deploy.batch.inputs import BATCH_SUFFIXES
        from ikc_deploy.batch.run import Joined, run_batch
    require_ray()

    def on_output(done: Upscaled | Joined) -> None:
        if isinstance(done, Joined):
            _show_clip(done, output.as_json)
        else:
            show_image(done, output.as_json)

    settings = BatchSettings(
        inputs,
        output.out,
        choice.for_actors(),
        video.encoder,
        ray.cluster,
        output.max_pixels,
        postprocessing,
    )
    with progress_bars() as bars:
        report = run_batch(settings, on_output, partial(bars.show, "frames"))
    note_skipped(inputs, BATCH_SUFFIXES)
    _conclude(report, output.as_json)


def _show_clip(done: Joined, as_json: bool) -> None:
    for warning in done.warnings:
        warn(f"{done.source.name}: {warning}")
    facts = {"input": str(done.source), "output": str(done.target), "frames": done.frames}
    result(json.dumps(facts) if as_json else f"{done.target}: {counted(done.frames, 'frame')}")


def _conclude(report: BatchReport, as_json: bool) -> None:
    if report.kept and not as_json:
        say(f"{report.kept} were complete already")
    if report.failures:
        total = report.made + report.kept + len(report.failures)
        heading = (
            f"{len(report.failures)} of {total} outputs failed; a second run retries only these:"
        )
        raise InputError("\n".join([heading, *report.failures]))
