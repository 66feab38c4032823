"""ikc-upscale on files: images and clips, one after another, with a summary at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from ikc_deploy.batch.inputs import BATCH_SUFFIXES, ClipTask, Inputs, find_inputs
from ikc_deploy.cli._interrupt import interruptible
from ikc_deploy.cli._kernel_options import KnownBlur
from ikc_deploy.cli._option_group import given_options
from ikc_deploy.cli._ui import ProgressBars, note, note_skipped, progress_bars, result, warn
from ikc_deploy.cli._upscale_output import OutputOptions
from ikc_deploy.cli._upscale_result import show_image
from ikc_deploy.cli._upscale_video import (
    STREAM_ONLY,
    VideoOptions,
    clip_request,
    clip_upscaler,
    report_text,
)
from ikc_deploy.cli._upscaler_choice import UpscalerChoice
from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.files import check_file
from ikc_deploy.imaging.file_upscaling import (
    ImageTask,
    Upscaled,
    upscale_file,
    upscale_file_nonblind,
)
from ikc_deploy.imaging.input_files import join_names
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.reporting.plotting import require_matplotlib
from ikc_deploy.runtime.nonblind import NonBlind
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.upscaler import Upscaler

_CLIP_OPTIONS: Final = {"--streams"}
"""Options of the upscaler that only clips have."""


def upscale_queue(
    inputs: tuple[Path, ...],
    output: OutputOptions,
    choice: UpscalerChoice,
    postprocessing: Postprocessing,
    known: KnownBlur | None,
    video: VideoOptions,
) -> None:
    """Upscale images and clips; a file that fails does not stop the others.

    Raises `InputError` before any work if options contradict the inputs, and at the end with a list
    of all failures. Exits with code 130 after Ctrl-C in a clip, whose output then has the frames
    that were finished.
    """
    if not inputs or output.out is None:
        raise InputError("name the inputs, and the output with -o OUT")
    if output.save_kernel is not None:
        _check_kernel_file(inputs, output.save_kernel)
    found = find_inputs(
        inputs, output.out, output.save_steps, output.max_pixels, recursive=output.recursive
    )
    _check_options(found, output, choice, known)
    tasks = _without_existing(found, output, video)
    if not tasks:
        return
    with ExitStack() as stack:
        upscale_image, upscaler = _open_networks(choice, known, stack)
        queue = _Queue(upscale_image, upscaler, choice, postprocessing, video, output.as_json)
        queue.run(
            [
                replace(
                    task,
                    strip=output.strip,
                    postprocessing=postprocessing,
                    kernel=output.save_kernel,
                )
                if isinstance(task, ImageTask)
                else task
                for task in tasks
            ]
        )
    note_skipped(inputs, BATCH_SUFFIXES, output.out if output.recursive else None)
    queue.conclude()


def _open_networks(
    choice: UpscalerChoice, known: KnownBlur | None, stack: ExitStack
) -> tuple[Callable[[ImageTask], Upscaled], Upscaler | None]:
    """Load the networks; `stack` closes them.

    Returns the function that upscales an image file, and the upscaler for clips: None with a known
    kernel, which is for images only.
    """
    if known is not None:
        network = stack.enter_context(NonBlind(choice.open_bundle(), choice.options.threads))
        upscale = known.nonblind_upscale(network)
        return lambda task: upscale_file_nonblind(task, network.scale, upscale), None
    upscaler = stack.enter_context(choice.open_upscaler())
    return lambda task: upscale_file(upscaler, task, choice.sigma), upscaler


class _Queue:
    """The files of one command, upscaled one after another, and their failures."""

    def __init__(
        self,
        upscale_image: Callable[[ImageTask], Upscaled],
        upscaler: Upscaler | None,
        choice: UpscalerChoice,
        postprocessing: Postprocessing,
        video: VideoOptions,
        as_json: bool,
    ) -> None:
        self._upscale_image = upscale_image
        self._upscaler = upscaler
        self._choice = choice
        self._postprocessing = postprocessing
        self._video = video
        self._as_json = as_json
        self._failures: list[str] = []
        self._total, self._kind = 0, "files"
        self._interrupted = False

    def run(self, tasks: Sequence[ImageTask | ClipTask]) -> None:
        """Upscale every file, until Ctrl-C."""
        self._total = len(tasks)
        pictures = all(isinstance(task, ImageTask) for task in tasks)
        self._kind = "images" if pictures else "files"
        with progress_bars(hidden=pictures and len(tasks) == 1) as bars:
            for done, task in enumerate(tasks):
                bars.show(self._kind, done, len(tasks), task.source.name)
                try:
                    self._upscale(task, bars)
                except (IkcError, OSError) as error:
                    self._failures.append(_about(task.source, error))
                if self._interrupted:
                    break

    def conclude(self) -> None:
        """Raise `InputError` if a file failed; exit after Ctrl-C."""
        if self._interrupted:
            for failure in self._failures:
                warn(failure)
            raise SystemExit(130)
        if self._failures:
            count = f"{len(self._failures)} of {self._total} {self._kind} failed:"
            raise InputError("\n".join([count] * (self._total > 1) + self._failures))

    def _upscale(self, task: ImageTask | ClipTask, bars: ProgressBars) -> None:
        if isinstance(task, ImageTask):
            show_image(self._upscale_image(task), self._as_json)
            return
        from ikc_deploy.video.video_run import Callbacks, run_request

        # With a known kernel, clips are refused before any work.
        assert self._upscaler is not None
        stop = threading.Event()
        name = task.source.name
        callbacks = Callbacks(
            warn=lambda sentence: warn(f"{name}: {sentence}"),
            progress=lambda done, total: bars.show("frames", done, total, unit="fps"),
        )
        preview = self._postprocessing.preview
        request = clip_request(task.source, task.target, self._video, preview)
        frames = clip_upscaler(self._upscaler, self._choice, self._postprocessing)
        try:
            with interruptible(stop) as interrupted:
                report = run_request(request, frames, stop, callbacks)
        finally:
            bars.remove("frames")
        result(report_text(request, report, self._as_json))
        self._interrupted = interrupted.is_set()


def _check_options(
    found: Inputs,
    output: OutputOptions,
    choice: UpscalerChoice,
    known: KnownBlur | None,
) -> None:
    """Refuse options that do not apply to one of the files."""
    if found.clips:
        odd = ["--kernel"] * (known is not None) + output.only_for_images
        if odd:
            raise InputError(
                f"{', '.join(odd)}: only for images, but '{found.clips[0].source}' is none"
            )
        given_here = given_options(VideoOptions)
        for name in STREAM_ONLY:
            if name in given_here:
                raise InputError(f"{name} is only for a single stream, not for files in a folder")
    else:
        odd = given_options(VideoOptions)
        odd += [name for name in given_options(UpscalerOptions) if name in _CLIP_OPTIONS]
        if odd:
            raise InputError(f"{', '.join(odd)}: only for video, but the inputs are images")
    if output.save_steps is not None:
        require_matplotlib("--save-steps")
    if found.pictures and choice.options.estimate == "track":
        raise InputError(
            "--estimate track is only for video: images are independent; give full or crops"
        )


def _without_existing(
    found: Inputs, output: OutputOptions, video: VideoOptions
) -> list[ImageTask | ClipTask]:
    """Return the tasks without those whose outputs are kept; refuse other existing outputs."""
    existing = output.existing
    requests = [
        clip_request(clip.source, clip.target, video, preview=False) for clip in found.clips
    ]
    unfinished = {request.target for request in requests if request.first_file() is None}
    kept = [
        task.target
        for task in found.tasks
        if existing.skips(task.target) and task.target not in unfinished
    ]
    tasks = [task for task in found.tasks if task.target not in kept]
    written = [task.target for task in tasks if task.target not in unfinished]
    written += [] if output.save_kernel is None else [output.save_kernel]
    existing.check([*written, *(steps for task in tasks for steps in _steps(task))])
    if kept:
        note(f"skipped, the output exists: {join_names(kept)}")
    return tasks


def _steps(task: ImageTask | ClipTask) -> list[Path]:
    if isinstance(task, ClipTask) or task.steps is None:
        return []
    return sorted(task.steps.glob("*.png"))


def _check_kernel_file(inputs: Sequence[Path], path: Path) -> None:
    """Refuse a kernel file for several images, or one that cannot be written."""
    if len(inputs) > 1 or inputs[0].is_dir():
        raise InputError("--save-kernel is for a single image; --save-steps is for folders")
    if path.suffix != ".npy":
        raise InputError(f"--save-kernel writes a NumPy file ending in .npy, got '{path}'")
    check_file(path)


def _about(source: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if str(source) in text else f"'{source}': {text}"
