"""ikc-upscale: upscale image files, folders, clips, cameras and pipes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from ikc_deploy.cli._command import HELP, CommandWithHeadings, reports_errors
from ikc_deploy.cli._kernel_options import KernelOptions, KnownBlur
from ikc_deploy.cli._option_group import given_options, option_group
from ikc_deploy.cli._upscale_batch import RayOptions, upscale_batch
from ikc_deploy.cli._upscale_output import OutputOptions
from ikc_deploy.cli._upscale_queue import upscale_queue
from ikc_deploy.cli._upscale_video import VideoOptions, upscale_video, video_options, video_request
from ikc_deploy.cli._upscaler_choice import UpscalerChoice, check_blur, upscaler_choice
from ikc_deploy.cli._value_types import PATH, PIXELS, WIDTH_HEIGHT
from ikc_deploy.errors import InputError
from ikc_deploy.imaging.output_paths import ExistingOutputs
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.runtime.backends.backend_names import ONNXRUNTIME
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.video.names import is_stream

_BY_WEIGHTS: Final = (
    "the scale is that of the weights, for example --weights x2-lite (all: ikc-inspect --weights); "
    "--factor and --size give another output size"
)
_BY_NAME: Final = "weights are chosen by --weights NAME; ikc-inspect --weights lists them"
_INPUTS: Final = "inputs need no option: ikc-upscale INPUT -o OUT"

_HINTS: Final = {
    **dict.fromkeys(("-s", "--scale", "--outscale"), _BY_WEIGHTS),
    **dict.fromkeys(("-n", "-m", "--model", "--model-name"), _BY_NAME),
    **dict.fromkeys(("-i", "--input"), _INPUTS),
    "--output": "the output is -o or --out",
    "--gpu": "a GPU is chosen by --device 0",
    "-g": "a GPU is chosen by --device 0",
    "--tta": "that is --self-ensemble",
    "-x": "that is --self-ensemble",
}
"""Hints for options of similar programs."""


@click.command(cls=CommandWithHeadings, context_settings=HELP, hints=_HINTS)
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
    """Upscale images (PNG, JPEG, WebP, TIFF, BMP, AVIF, HEIC, ...), clips, and folders of both.

    The suffix of the output chooses its format. Several images, clips and folders are upscaled one
    after another into the folder OUT, under the names of the inputs; clips in containers that
    cannot be written become .mkv. A file that fails does not stop the others: it is listed at the
    end, with exit code 2. Skipped entries of a folder are listed too: hidden files, subfolders
    (without --recursive), other formats. Files are processed in natural order: 1, 2, 10.

    Existing outputs are refused before any work, unless --overwrite or --skip-existing is given.

    Images: EXIF rotation is applied; grey stays grey; transparency is kept and upscaled
    bicubically. Palettes, CMYK and CIELAB become RGB, and 16-bit samples become 8-bit. Animations
    are refused. Metadata is kept, with the new size and without thumbnails (--strip removes it); a
    message lists metadata that the output format does not support. JPEG and WebP are written at
    quality 95. HEIC needs the extra heif.

    Clips: sound, subtitles, time stamps and colour are kept. A folder of frames, or a pattern such
    as 'frames/%04d.png', becomes a clip if the output is one; - is raw video on a pipe. After
    Ctrl-C, the output contains the frames that were finished, and --resume continues it.

    With --size, --width, --height or --factor, the image is upscaled by the network's scale and
    then resized with Pillow's Lanczos filter (3 lobes, antialiased); the aspect is kept unless
    --stretch is given, and clips get even sides. --strength blends with bicubic upscaling. Both
    work on the stored values, not in linear light.

    With weights for elliptic blurs, the output line and --json contain the sigmas along both axes
    (HR pixels) and the angle of the long axis (degrees from the horizontal, counterclockwise).

    With --kernel, images are upscaled for a blur kernel of any shape by the bundle's USRNet graph,
    on the CPU and in tiles of the size that the graph accepts.

    With --ray, the work is shared by many processes, on this machine or a cluster. A second run
    adds missing outputs.
    """
    check_blur(choice)
    known = kernel.read()
    if known is not None:
        _check_known(choice, output, ray)
    if ray.given():
        _check_without_ray(output, postprocessing)
        upscale_batch(inputs, output, choice, postprocessing, video, ray)
        return
    if video.camera is None and not is_stream(inputs, output.out):
        upscale_queue(inputs, output, choice, postprocessing, known, video)
        return
    _check_for_clip(output, known)
    request = video_request(inputs, output.out, video, postprocessing.preview)
    upscale_video(request, choice, postprocessing, output.existing, output.as_json)


def _check_without_ray(output: OutputOptions, postprocessing: Postprocessing) -> None:
    """Refuse options that --ray does not support."""
    refused = ["--preview"] * postprocessing.preview + output.only_for_images
    refused += ["--recursive"] * output.recursive + given_options(ExistingOutputs)
    if refused:
        raise InputError(f"{', '.join(refused)}: only without --ray; leave it out")


def _check_for_clip(output: OutputOptions, known: KnownBlur | None) -> None:
    """Refuse options that do not apply to clips."""
    refused = ["--kernel"] * (known is not None) + output.only_for_images
    refused += ["--recursive"] * output.recursive
    if refused:
        raise InputError(
            f"{', '.join(refused)}: only for images; extract a frame of the clip first"
        )


def _check_known(choice: UpscalerChoice, output: OutputOptions, ray: RayOptions) -> None:
    """Refuse options that do not apply with a known kernel."""
    options = choice.options
    odd = {
        "--sigma": choice.sigma is not None,
        "--estimate": "--estimate" in given_options(UpscalerOptions),
        "--tile or --max-memory": options.tiles != TileSettings(),
        "--self-ensemble": options.self_ensemble,
        **dict.fromkeys(output.saved, True),
        "--ray": ray.given(),
        "--backend": options.backend not in (UpscalerOptions.backend, ONNXRUNTIME),
    }
    refused = [name for name, given in odd.items() if given]
    if refused:
        raise InputError(f"--kernel gives the blur; leave out {', '.join(refused)}")


if __name__ == "__main__":
    main()
