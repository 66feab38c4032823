"""ikc-upscale: upscale image files, folders, clips, cameras and pipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import click

from ikc_deploy.cli._command import HELP, CommandWithHeadings, reports_errors
from ikc_deploy.cli._kernel_options import KernelOptions, KnownBlur
from ikc_deploy.cli._option_group import given_options, option_group
from ikc_deploy.cli._ui import note, note_skipped, progress_bars, result
from ikc_deploy.cli._upscale_batch import RayOptions, upscale_batch
from ikc_deploy.cli._upscale_video import VideoOptions, upscale_video, video_options, video_request
from ikc_deploy.cli._upscaler_choice import UpscalerChoice, check_blur, upscaler_choice
from ikc_deploy.cli._value_types import PATH, PIXELS, WIDTH_HEIGHT
from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.files import check_file
from ikc_deploy.imaging.folders import names
from ikc_deploy.imaging.image_files import (
    ImageTask,
    Upscaled,
    plan_tasks,
    upscale_file,
    upscale_file_nonblind,
)
from ikc_deploy.imaging.image_io import MAX_PIXELS
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.option_fields import Option
from ikc_deploy.reporting.plotting import require_matplotlib
from ikc_deploy.runtime.backends import CPU_BACKEND
from ikc_deploy.runtime.nonblind import NonBlind
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.tiling import TileSettings


@dataclass(frozen=True)
class OutputOptions:
    """Where and how results are written."""

    out: Annotated[
        Path | None,
        Option(
            "Output: a file for one image or clip, a folder for images, a name such as %06d.png "
            "for frames, or - for a pipe.",
            flags=("--out", "-o"),
        ),
    ] = None
    as_json: Annotated[
        bool, Option("Print one JSON object for each output.", flags=("--json",))
    ] = False
    save_steps: Annotated[
        Path | None,
        Option(
            "Folder for the image of every step and a figure of the kernels, named after the "
            "input.",
            heading="Output",
        ),
    ] = None
    save_kernel: Annotated[
        Path | None,
        Option(
            "NumPy file (.npy) for the estimated blur kernel of a single image: float32, 21x21 HR "
            "pixels, of the last step.",
            heading="Output",
        ),
    ] = None
    recursive: Annotated[
        bool,
        Option("Search subfolders too; the outputs get the same subfolders.", heading="Output"),
    ] = False
    skip_existing: Annotated[
        bool,
        Option(
            "Keep outputs that exist, and upscale only the other images; without it, they are "
            "replaced.",
            heading="Output",
        ),
    ] = False
    strip: Annotated[
        bool,
        Option(
            "Write no metadata (EXIF, XMP, IPTC, texts, density), except what the colours depend "
            "on.",
            heading="Output",
        ),
    ] = False
    max_pixels: Annotated[
        int | None,
        Option(
            "Pixels of the largest image that is read, for example 200M, or none; it protects "
            "against files made to exhaust memory.",
            default=f"{MAX_PIXELS / 1e6:.0f}M",
            heading="Speed and memory",
            metavar="COUNT",
        ),
    ] = MAX_PIXELS


@click.command(cls=CommandWithHeadings, context_settings=HELP)
@reports_errors
@click.argument("inputs", metavar="INPUT...", nargs=-1, type=PATH)
@option_group(OutputOptions, "output", types={"max_pixels": PIXELS})
@upscaler_choice
@option_group(Postprocessing, "postprocessing", types={"size": WIDTH_HEIGHT})
@option_group(KernelOptions, "kernel")
@video_options
@option_group(RayOptions, "ray")
def main(
    inputs: tuple[Path, ...],
    output: OutputOptions,
    choice: UpscalerChoice,
    postprocessing: Postprocessing,
    kernel: KernelOptions,
    video: VideoOptions,
    ray: RayOptions,
) -> None:
    """Upscale image files, all images in folders (PNG, JPEG, WebP, TIFF, BMP), or a video.

    Outputs in a folder keep the input's name. The suffix chooses the format; JPEG and WebP are
    written at quality 95.

    EXIF rotation is applied; grey stays grey; transparency is upscaled bicubically and kept.
    Palettes, CMYK and CIELAB become RGB, and 16-bit samples become 8-bit. Animations are refused.
    Metadata is kept, with the new size and without thumbnails (--strip drops it); a line states
    what the format of an output cannot hold. AVIF and HEIC (extra heif) can be read.

    An image that cannot be upscaled does not stop the others: it is listed at the end, with exit
    code 2. What was skipped in a folder is listed too: hidden files, subfolders (without
    --recursive), other formats. Files are taken in natural order: 1, 2, 10.

    With --size, --width, --height or --factor, the image is upscaled by the network's scale and
    then resized with Pillow's Lanczos filter (3 lobes, antialiased); the aspect is kept unless
    --stretch is given, and clips get even sides. --strength blends with bicubic upscaling. Both
    work on the stored values, not in linear light.

    A clip keeps its sound, subtitles, time stamps and colour. A folder of frames becomes a clip if
    the output is one; - is raw video on a pipe. After Ctrl-C the clip is completed with the frames
    done so far, and --resume continues it.

    With weights for elliptic blurs, the line of an image and --json have the sigmas along both axes
    (HR pixels) and the angle of the long one (degrees from the horizontal, counterclockwise).

    With --kernel, images are upscaled under a blur of any shape by the bundle's fourth graph on the
    CPU, in tiles of the one size that the graph accepts.

    With --ray, images, clips and folders of both are upscaled into the folder OUT by many
    processes, on this machine or a cluster. A second run adds what is missing.
    """
    check_blur(choice)
    known = kernel.read()
    if known is not None:
        _check_known(choice, output, ray)
    if ray.given():
        _check_without_ray()
        upscale_batch(
            inputs,
            output.out,
            ray,
            video,
            choice.for_actors,
            _show,
            output.as_json,
            output.max_pixels,
        )
        return
    request = video_request(inputs, output.out, video, postprocessing.preview)
    if request is None:
        _upscale_pictures(inputs, output, choice, postprocessing, known)
        return
    _check_for_video(known)
    upscale_video(request, choice, postprocessing, output.as_json)


def _given_for_images() -> list[str]:
    """Return the given options that are only for images of this process, by their names."""
    return given_options(OutputOptions, without=("out", "as_json", "max_pixels"))


def _check_without_ray() -> None:
    """Refuse options that the actors of --ray do not support."""
    refused = [*given_options(Postprocessing), *_given_for_images()]
    if refused:
        raise InputError(f"{', '.join(refused)}: only without --ray; leave it out")


def _check_for_video(known: KnownBlur | None) -> None:
    """Refuse options that have no meaning for a clip."""
    refused = [*(["--kernel"] if known is not None else []), *_given_for_images()]
    if refused:
        raise InputError(
            f"{', '.join(refused)}: only for images; extract a frame of the clip first"
        )


def _check_kernel_file(inputs: Sequence[Path], path: Path) -> None:
    """Refuse a file for the kernel that cannot be written, or more than one image."""
    if len(inputs) > 1 or inputs[0].is_dir():
        raise InputError("--save-kernel is for a single image; --save-steps is for folders")
    if path.suffix != ".npy":
        raise InputError(f"--save-kernel writes a NumPy file ending in .npy, got '{path}'")
    check_file(path)


def _check_known(choice: UpscalerChoice, output: OutputOptions, ray: RayOptions) -> None:
    """Refuse options that have no meaning with a known kernel."""
    options = choice.options
    odd = {
        "--sigma": choice.sigma is not None,
        "--estimate": "--estimate" in given_options(UpscalerOptions),
        "--tile or --max-memory": options.tiles != TileSettings(),
        "--save-steps": output.save_steps is not None,
        "--save-kernel": output.save_kernel is not None,
        "--ray": ray.given(),
        "--backend": options.backend not in (UpscalerOptions.backend, CPU_BACKEND),
    }
    refused = [name for name, given in odd.items() if given]
    if refused:
        raise InputError(f"--kernel gives the blur; leave out {', '.join(refused)}")


def _upscale_pictures(
    inputs: tuple[Path, ...],
    output: OutputOptions,
    choice: UpscalerChoice,
    postprocessing: Postprocessing,
    known: KnownBlur | None,
) -> None:
    if not inputs or output.out is None:
        raise InputError("name the inputs, and the output with -o OUT")
    if output.save_kernel is not None:
        _check_kernel_file(inputs, output.save_kernel)
    jobs = [
        replace(
            job,
            strip=output.strip,
            postprocessing=postprocessing,
            kernel=output.save_kernel,
        )
        for job in plan_tasks(
            inputs, output.out, output.save_steps, output.max_pixels, recursive=output.recursive
        )
    ]
    existing = [job for job in jobs if output.skip_existing and job.target.exists()]
    if existing:
        note(f"skipped, the output exists: {names([job.target for job in existing])}")
        jobs = [job for job in jobs if job not in existing]
        if not jobs:
            return
    if output.save_steps is not None:
        require_matplotlib("--save-steps")
    if choice.options.estimate == "track":
        raise InputError(
            "--estimate track is only for video: images are independent; give full or crops"
        )
    if known is not None:
        with NonBlind(choice.open_bundle(), choice.options.threads) as network:
            restore, scale = known.nonblind_upscale(network), network.scale
            _do(jobs, lambda job: upscale_file_nonblind(job, scale, restore), inputs, output)
        return
    with choice.open_upscaler() as upscaler:
        _do(jobs, lambda job: upscale_file(upscaler, job, choice.sigma), inputs, output)


def _do(
    jobs: Sequence[ImageTask],
    upscale: Callable[[ImageTask], Upscaled],
    inputs: Sequence[Path],
    output: OutputOptions,
) -> None:
    """Run every job and print what was skipped; raise `InputError` listing all that failed."""
    failures: list[str] = []
    with progress_bars(hidden=len(jobs) == 1) as bars:
        for done, job in enumerate(jobs):
            bars.show("images", done, len(jobs), job.source.name)
            try:
                upscaled = upscale(job)
            except (IkcError, OSError) as error:
                failures.append(" ".join(str(error).split()))
            else:
                _show(upscaled, output.as_json)
    note_skipped(inputs, recursive_to=output.out if output.recursive else None)
    if failures:
        count = [] if len(jobs) == 1 else [f"{len(failures)} of {len(jobs)} images failed:"]
        raise InputError("\n".join(count + failures))


def _show(done: Upscaled, as_json: bool) -> None:
    if done.not_kept:
        note(f"not kept in {done.task.target}: {', '.join(done.not_kept)}")
    result(json.dumps(_facts(done)) if as_json else _line(done))


_TOLD_NOISE: Final = 1.0
"""Noise in 8-bit levels below which a line does not mention it."""
_TOLD_QUALITY: Final = 97.0
"""JPEG quality from which on a line does not mention it."""


def _line(done: Upscaled) -> str:
    (lr_height, lr_width), (sr_height, sr_width) = done.lr, done.sr
    parts = [f"{done.task.target}: {lr_width}x{lr_height} -> {sr_width}x{sr_height}"]
    if done.sigma is not None:
        parts.append(f"sigma {done.sigma:.2f}")
    if done.ellipse is not None:
        ellipse = done.ellipse
        parts.append(f"ellipse {ellipse.long:.2f} x {ellipse.short:.2f} at {ellipse.angle:.0f}°")
    if done.noise is not None and done.noise >= _TOLD_NOISE:
        parts.append(f"noise {done.noise:.0f}")
    if done.jpeg_quality is not None and done.jpeg_quality < _TOLD_QUALITY:
        parts.append(f"JPEG quality {done.jpeg_quality:.0f}")
    parts.append(f"{done.timings['total']:.0f} ms")
    if done.bits > 8:
        parts.append(f"{done.bits} bits -> 8")
    return ", ".join(parts)


def _facts(done: Upscaled) -> dict[str, object]:
    ellipse = None if done.ellipse is None else asdict(done.ellipse)
    return {
        "input": str(done.task.source),
        "output": str(done.task.target),
        "lr": done.lr,
        "sr": done.sr,
        "sigma": None if done.sigma is None else round(done.sigma, 4),
        "ellipse": None if ellipse is None else {key: round(ellipse[key], 4) for key in ellipse},
        "noise": None if done.noise is None else round(done.noise, 2),
        "jpeg_quality": None if done.jpeg_quality is None else round(done.jpeg_quality, 1),
        "not_kept": done.not_kept,
        "timings_ms": {name: round(value, 3) for name, value in done.timings.items()},
    }


if __name__ == "__main__":
    main()
