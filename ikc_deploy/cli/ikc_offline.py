"""ikc-offline: upscale one image whose blur no network was trained on."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ikc_deploy import Bundle, load
from ikc_deploy.cli._bundle_options import BundleOptions
from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._interrupt import interruptible
from ikc_deploy.cli._option_group import given_options, option_group
from ikc_deploy.cli._ui import ProgressBars, note, note_skipped, print_table, progress_bars, say
from ikc_deploy.cli._value_types import PATH
from ikc_deploy.errors import IkcError, InputError, MissingExtraError
from ikc_deploy.offline.ike_switches import IkeSwitches
from ikc_deploy.offline.inputs import find_images
from ikc_deploy.reporting.plotting import require_matplotlib

if TYPE_CHECKING:
    from ikc_deploy.offline.forward_model import Alignment
    from ikc_deploy.offline.job import OfflineOutcome
    from ikc_deploy.offline.nonblind_stage import NonBlindStage
    from ikc_deploy.offline.optimize import Losses

_METHODS: Final = ("dip-fkp", "kernelgan-fkp", "ike")
_FINISHES: Final = ("usrnet", "sftmd")
# The shipped weights of each scale that were trained on the most kernels.
_WEIGHTS: Final = {2: "x2-lite", 3: "x3-lite", 4: "x4-aniso"}


@dataclass(frozen=True)
class _NonBlindWeights:
    """Options that choose the network of `--then`."""

    usrnet: Path | None
    bundle: BundleOptions

    def check(self, then: str | None) -> None:
        """Raise `InputError` for options of another network than `then`."""
        if self.usrnet is not None and then != "usrnet":
            raise InputError("--usrnet is for --then usrnet")
        if then != "sftmd" and self.bundle != BundleOptions():
            raise InputError("--weights and --bundle are for --then sftmd")

    def open_bundle(self, scale: int) -> Bundle:
        """Return the bundle: shipped weights of `scale` unless others were given."""
        unchosen = self.bundle == BundleOptions()
        bundle = (BundleOptions(_WEIGHTS[scale]) if unchosen else self.bundle).open()
        found = bundle.manifest.scale
        if found != scale:
            raise InputError(
                f"{bundle.manifest.name} upscales x{found}, not x{scale}; give other --weights"
            )
        return bundle


@click.command(context_settings=HELP)
@reports_errors
@click.argument("inputs", metavar="IMAGE...", nargs=-1, required=True, type=PATH)
@click.option("--method", type=click.Choice(_METHODS), required=True, help="Method to fit.")
@click.option(
    "--scale", type=click.IntRange(2, 4), required=True, help="SR side divided by LR side."
)
@click.option("--out", "-o", type=PATH, required=True, help="Folder of the results.")
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    help="Number of iterations; the FKP methods continue an earlier fit if it is larger.  "
    "[default: the method's]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--crop",
    type=click.IntRange(min=32),
    metavar="N",
    help="Fit only the NxN LR pixels with the most texture; --then upscales the whole image.",
)
@click.option(
    "--alignment",
    type=click.Choice(["centre", "fkp"]),
    help="Position of LR pixels in the HR image: as in resizing, or as in FKP's test images.  "
    "[default: centre]",
)
@click.option("--prior", type=PATH, help="Weights of the kernel flow instead of the shipped ones.")
@click.option("--reference", type=PATH, help="HR image, to print PSNR-Y.")
@click.option(
    "--true-kernel",
    type=PATH,
    help="True kernel [k,k] in an .npy file, in the FKP convention, to print the kernel PSNR.",
)
@click.option(
    "--then",
    type=click.Choice(_FINISHES),
    help="Upscale the image again by USRNet, or by the SR network of a bundle, under the kernel "
    "that was found.",
)
@click.option("--usrnet", type=PATH, help="Weights for --then usrnet instead of the shipped ones.")
@option_group(BundleOptions, "bundle")
@option_group(IkeSwitches, "switches")
def main(
    inputs: tuple[Path, ...],
    method: str,
    scale: int,
    out: Path,
    iterations: int | None,
    seed: int,
    device: str,
    crop: int | None,
    alignment: Alignment | None,
    prior: Path | None,
    reference: Path | None,
    true_kernel: Path | None,
    then: str | None,
    usrnet: Path | None,
    bundle: BundleOptions,
    switches: IkeSwitches,
) -> None:
    """Estimate the blur of IMAGE and upscale it by fitting networks to it alone, for minutes.

    Several images, or a folder, are fitted one after another into OUT/NAME; --reference and
    --true-kernel are then folders with files of the same names. An image that fails does not stop
    the others; a table with all is printed at the end.

    Writes image.png, kernel.png and kernel.npy (in the FKP convention), history.csv, history.png
    and report.json; with --then also image-usrnet.png or image-sftmd.png. --weights and --bundle
    are for --then sftmd. Transparency is dropped.

    Ctrl-C ends the fit after the current iteration and writes the results so far (exit code 130).
    The same command continues it, with the same result as an uninterrupted run.
    """
    require_matplotlib("ikc-offline", "offline")
    try:
        from ikc_deploy.offline.job import plan, run
        from ikc_deploy.offline.methods import METHODS
        from ikc_deploy.offline.outputs import check_output
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "offline", "ikc-offline") from error
    images = find_images(inputs, out, reference, true_kernel)
    for each in images:
        check_output(each.out)
    chosen = METHODS[method]
    settings = chosen.settings(
        iterations=iterations,
        seed=seed,
        device=device,
        alignment=alignment,
        prior=prior,
        **{_field(name): getattr(switches, _field(name)) for name in given_options(IkeSwitches)},
    )
    weights_of = _NonBlindWeights(usrnet, bundle)
    with _nonblind_stage(then, scale, alignment or "centre", device, weights_of) as nonblind:
        failures: list[str] = []
        rows: list[tuple[str, ...]] = []
        for each in images:
            stop = threading.Event()
            try:
                job = plan(
                    each.image,
                    scale,
                    chosen,
                    settings,
                    crop=crop,
                    reference=each.reference,
                    true_kernel=each.true_kernel,
                    nonblind=nonblind,
                )
                with interruptible(stop) as interrupted, progress_bars() as bars:
                    show = partial(_show, bars, each.image.name if len(images) > 1 else method)
                    outcome = run(job, each.out, show, stop)
            except (IkcError, OSError) as error:
                if len(images) == 1:
                    raise
                failures.append(f"'{each.image}': {' '.join(str(error).split())}")
                continue
            for line in _lines(outcome, then):
                say(line)
            rows.append((each.image.name, *_cells(outcome)))
            if interrupted.is_set():
                done = len(outcome.result.history)
                note(f"stopped after {done} iterations; run the same command to continue")
                raise SystemExit(130)
    if len(images) > 1:
        note_skipped(inputs)
        print_table(f"{method} x{scale} (images: {len(rows)})", _HEADER, rows)
    if failures:
        heading = f"{len(failures)} of {len(images)} images failed:"
        raise InputError("\n".join([heading, *failures]))


_HEADER: Final = ("", "PSNR-Y dB", "bicubic dB", "kernel dB", "iterations")


def _cells(outcome: OfflineOutcome) -> tuple[str, ...]:
    figures = outcome.figures
    names = ("psnr_y", "psnr_y_bicubic", "kernel_psnr_of_its_peak")
    return (
        *(f"{figures[name]:.2f}" if name in figures else "" for name in names),
        str(len(outcome.result.history)),
    )


def _show(bars: ProgressBars, name: str, done: int, total: int, losses: Losses) -> None:
    text = ", ".join(f"{loss} {value:.4g}" for loss, value in losses.items())
    bars.show(name, done, total, text)


def _field(option: str) -> str:
    """Return the field of an option."""
    return option.removeprefix("--").replace("-", "_")


@contextmanager
def _nonblind_stage(
    then: str | None, scale: int, alignment: Alignment, device: str, given: _NonBlindWeights
) -> Generator[NonBlindStage | None, None, None]:
    """Open the network of `--then` before anything is fitted; yield None without `--then`."""
    given.check(then)
    if then is None:
        yield None
        return
    from ikc_deploy.offline.nonblind_stage import SftmdNonBlind, UsrnetNonBlind

    if then == "usrnet":
        from ikc_deploy.networks.usrnet import load_usrnet

        yield UsrnetNonBlind(load_usrnet(given.usrnet), scale, alignment, device)
        return
    with load(given.open_bundle(scale)) as upscaler:
        yield SftmdNonBlind(upscaler, alignment)


def _lines(outcome: OfflineOutcome, then: str | None) -> list[str]:
    """Return lines with the files and what was measured."""
    result, figures = outcome.result, outcome.figures
    height, width = result.image.shape[:2]
    lines = [f"{outcome.paths[0].parent}: {', '.join(path.name for path in outcome.paths)}"]
    lines.append(f"image: {width}x{height}" + _decibels(figures, "psnr_y", "psnr_y_bicubic"))
    if result.kernel is not None:
        text = f"kernel: {len(result.kernel)}x{len(result.kernel)}"
        if "kernel_psnr" in figures:
            text += (
                f", PSNR {figures['kernel_psnr']:.2f} dB as in the paper (peak 1), "
                f"{figures['kernel_psnr_of_its_peak']:.2f} dB of its own peak"
            )
        lines.append(text)
    if then is not None:
        text = f"{then}: under the kernel that was found"
        if "kernel_lost" in figures:
            text = f"{then}: under a kernel {figures['kernel_lost']:.1%} off the one that was found"
        lines.append(text + _decibels(figures, f"psnr_y_{then}"))
    return lines


def _decibels(figures: dict[str, float], name: str, bicubic: str | None = None) -> str:
    if name not in figures:
        return ""
    text = f", PSNR-Y {figures[name]:.2f} dB"
    return text if bicubic is None else f"{text} (bicubic {figures[bicubic]:.2f} dB)"


if __name__ == "__main__":
    main()
