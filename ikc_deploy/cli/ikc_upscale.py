"""ikc-upscale: upscale image files, folders, clips, cameras and pipes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ikc_deploy.cli._common import (
    HELP,
    err_console,
    note,
    note_skipped,
    reports_errors,
    say,
)
from ikc_deploy.cli._kernel_options import KernelOptions, kernel_options
from ikc_deploy.cli._upscale_batch import RayOptions, ray_options, upscale_batch
from ikc_deploy.cli._upscale_video import VideoOptions, upscale_video, video_options, video_request
from ikc_deploy.cli._upscaler_options import UpscalerOptions, upscaler_options
from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.imaging.image_files import (
    ImageTask,
    Upscaled,
    plan_tasks,
    upscale_file,
    upscale_file_nonblind,
)
from ikc_deploy.reporting.plotting import require_matplotlib
from ikc_deploy.runtime.backends import CPU_BACKEND
from ikc_deploy.runtime.nonblind import NonBlind
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.text import escape_controls

_PATH = click.Path(path_type=Path)

_COUNT: Final = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)")
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def _pixels(_: click.Context, __: click.Parameter, text: str) -> int | None:
    if text.strip().lower() == "none":
        return None
    count = _COUNT.fullmatch(text.strip().upper())
    if count is None or not float(count[1]):
        raise click.BadParameter(
            f"invalid number of pixels '{text}': expected for example 200M, or none"
        )
    return round(float(count[1]) * _UNITS[count[2]])


@click.command(context_settings=HELP)
@reports_errors
@click.argument("inputs", metavar="INPUT...", nargs=-1, type=_PATH)
@click.option(
    "--out",
    "-o",
    type=_PATH,
    help="Output: a file for one image or clip, a folder for images, a name such as %06d.png for "
    "frames, or - for a pipe.",
)
@upscaler_options
@kernel_options
@click.option(
    "--save-steps",
    type=_PATH,
    help="Folder for the image of every step and a figure of the kernels, named after the input.",
)
@click.option(
    "--max-pixels",
    metavar="COUNT",
    default="179M",
    show_default=True,
    callback=_pixels,
    help="Pixels of the largest image that is read, for example 200M, or none; it protects against "
    "files made to exhaust memory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each output.")
@video_options
@ray_options
def main(
    inputs: tuple[Path, ...],
    out: Path | None,
    options: UpscalerOptions,
    known: KernelOptions | None,
    save_steps: Path | None,
    max_pixels: int | None,
    as_json: bool,
    video: VideoOptions,
    ray: RayOptions,
) -> None:
    """Upscale image files, all images in folders (PNG, JPEG, WebP, TIFF, BMP), or a video.

    Outputs in a folder keep the input's name. The suffix chooses the format; JPEG and WebP are
    written at quality 95.

    EXIF rotation is applied; grey stays grey; transparency is upscaled bicubically and kept; the
    ICC profile is copied, other metadata is not. Palettes, CMYK and CIELAB become RGB, and 16-bit
    samples become 8-bit. Animations are refused.

    An image that cannot be upscaled does not stop the others: it is listed at the end, with exit
    code 2. What was skipped in a folder is listed too: hidden files, subfolders, other formats.

    A clip keeps its sound, subtitles, time stamps and colour. A folder of frames becomes a clip if
    the output is one; - is raw video on a pipe. After Ctrl-C the clip is completed with the frames
    done so far, and --resume continues it.

    With --kernel, images are upscaled under a blur of any shape by the bundle's fourth graph on the
    CPU, in tiles of the one size that the graph accepts.

    With --ray, images, clips and folders of both are upscaled into the folder OUT by many
    processes, on this machine or a cluster. A second run adds what is missing.
    """
    if known is not None:
        _check_known(options, save_steps, ray)
    if ray.given():
        if save_steps is not None:
            raise InputError("--save-steps is only for images without --ray")
        upscale_batch(inputs, out, ray, video, options.settings, _show, as_json, max_pixels)
        return
    request = video_request(inputs, out, video)
    if request is None:
        _upscale_pictures(inputs, out, options, known, save_steps, max_pixels, as_json)
        return
    for name, value in {"--kernel": known, "--save-steps": save_steps}.items():
        if value is not None:
            raise InputError(f"{name} is only for images; extract a frame of the clip first")
    upscale_video(request, options.open_upscaler, options.blur, as_json)


def _check_known(options: UpscalerOptions, save_steps: Path | None, ray: RayOptions) -> None:
    """Refuse options that have no meaning with a known kernel."""
    cpu = options.backend in ("auto", CPU_BACKEND)
    odd = {
        "--sigma": options.blur.sigma,
        "--estimate": options.blur.estimate,
        "--tile or --max-memory": None if options.tiles == TileSettings() else options.tiles,
        "--save-steps": save_steps,
        "--ray": ray.given() or None,
        "--backend": None if cpu else options.backend,
    }
    refused = [name for name, value in odd.items() if value is not None]
    if refused:
        raise InputError(f"--kernel gives the blur; leave out {', '.join(refused)}")


def _upscale_pictures(
    inputs: tuple[Path, ...],
    out: Path | None,
    options: UpscalerOptions,
    known: KernelOptions | None,
    save_steps: Path | None,
    max_pixels: int | None,
    as_json: bool,
) -> None:
    if not inputs or out is None:
        raise InputError("name the inputs, and the output with -o OUT")
    jobs = plan_tasks(inputs, out, save_steps, max_pixels)
    if save_steps is not None:
        require_matplotlib("--save-steps")
    if options.blur.estimate == "track":
        raise InputError(
            "--estimate track is only for video: images are independent; give full or crops"
        )
    if known is not None:
        with NonBlind(options.open_bundle(), options.threads) as network:
            restore, scale = known.nonblind_upscale(network), network.scale
            _do(jobs, lambda job: upscale_file_nonblind(job, scale, restore), inputs, as_json)
        return
    with options.open_upscaler() as upscaler:
        _do(jobs, lambda job: upscale_file(upscaler, job, options.blur.sigma), inputs, as_json)


def _do(
    jobs: Sequence[ImageTask],
    upscale: Callable[[ImageTask], Upscaled],
    inputs: Sequence[Path],
    as_json: bool,
) -> None:
    """Run every job and print what was skipped; raise `InputError` listing all that failed."""
    failures: list[str] = []
    with _progress(len(jobs)) as bars:
        task = bars.add_task("", total=len(jobs))
        for job in jobs:
            bars.update(task, description=escape(escape_controls(job.source.name)))
            try:
                done = upscale(job)
            except (IkcError, OSError) as error:
                failures.append(" ".join(str(error).split()))
            else:
                _show(done, as_json)
            bars.advance(task)
    note_skipped(inputs)
    if failures:
        count = [] if len(jobs) == 1 else [f"{len(failures)} of {len(jobs)} images failed:"]
        raise InputError("\n".join(count + failures))


def _progress(images: int) -> Progress:
    """Return a bar on standard error; disabled for a single image, or if it is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err_console,
        transient=True,
        # True would redirect results meant for a file or a pipe to standard error.
        redirect_stdout=False,
        disable=images == 1 or not err_console.is_terminal,
    )


def _show(done: Upscaled, as_json: bool) -> None:
    _print(json.dumps(_facts(done)) if as_json else _line(done))


def _print(line: str) -> None:
    if err_console.is_terminal and sys.stdout.isatty():
        # Both are the same terminal: the bar's console writes above the bar, not into it.
        note(line)
    else:
        say(line)


_TOLD_NOISE: Final = 1.0
"""Noise in 8-bit levels below which a line does not mention it."""
_TOLD_QUALITY: Final = 97.0
"""JPEG quality from which on a line does not mention it."""


def _line(done: Upscaled) -> str:
    (lr_height, lr_width), (sr_height, sr_width) = done.lr, done.sr
    parts = [f"{done.task.target}: {lr_width}x{lr_height} -> {sr_width}x{sr_height}"]
    if done.sigma is not None:
        parts.append(f"sigma {done.sigma:.2f}")
    if done.noise is not None and done.noise >= _TOLD_NOISE:
        parts.append(f"noise {done.noise:.0f}")
    if done.jpeg_quality is not None and done.jpeg_quality < _TOLD_QUALITY:
        parts.append(f"JPEG quality {done.jpeg_quality:.0f}")
    parts.append(f"{done.timings['total']:.0f} ms")
    if done.bits > 8:
        parts.append(f"{done.bits} bits -> 8")
    return ", ".join(parts)


def _facts(done: Upscaled) -> dict[str, object]:
    return {
        "input": str(done.task.source),
        "output": str(done.task.target),
        "lr": done.lr,
        "sr": done.sr,
        "sigma": None if done.sigma is None else round(done.sigma, 4),
        "noise": None if done.noise is None else round(done.noise, 2),
        "jpeg_quality": None if done.jpeg_quality is None else round(done.jpeg_quality, 1),
        "timings_ms": {name: round(value, 3) for name, value in done.timings.items()},
    }


if __name__ == "__main__":
    main()
