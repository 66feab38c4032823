"""ikc-offline: upscale one image whose blur no network was trained on."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import click

from ikc_deploy import Bundle, load
from ikc_deploy.cli._bundle_options import BundleOptions
from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._interrupt import interruptible
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._ui import note, note_skipped, print_table, progress_bars, say
from ikc_deploy.cli._value_types import PATH
from ikc_deploy.errors import IkcError, InputError, needs_extra
from ikc_deploy.offline.fit_settings import Alignment, FitDevice, FlowFitSettings
from ikc_deploy.offline.ike_switches import IkeSwitches
from ikc_deploy.offline.input_images import OfflineInput, find_images
from ikc_deploy.offline.methods import METHODS, Method, MethodName
from ikc_deploy.option_fields import Option, changed_options
from ikc_deploy.reporting.plotting import require_matplotlib

if TYPE_CHECKING:
    from ikc_deploy.offline.job import OfflineOutcome
    from ikc_deploy.offline.nonblind_stage import NonBlindStage
    from ikc_deploy.offline.optimize import Losses

# The shipped weights of each scale that were trained on the most kernels.
_WEIGHTS: Final = {2: "x2-lite", 3: "x3-lite", 4: "x4-aniso"}


@dataclass(frozen=True)
class FitOptions:
    """What is fitted, where the results go, and what they are measured against."""

    method: Annotated[MethodName, Option("Method to fit.")]
    scale: Annotated[int, Option("SR side divided by LR side.", minimum=2, maximum=4)]
    out: Annotated[Path, Option("Folder of the results.", flags=("--out", "-o"))]
    crop: Annotated[
        int | None,
        Option(
            "Fit only the NxN LR pixels with the most texture; --then upscales the whole image.",
            default="the whole image",
            minimum=32,
            metavar="N",
        ),
    ] = None
    reference: Annotated[Path | None, Option("HR image, to print PSNR-Y.")] = None
    true_kernel: Annotated[
        Path | None,
        Option(
            "True kernel [k,k] in an .npy file, in the FKP convention, to print the kernel PSNR."
        ),
    ] = None


@dataclass(frozen=True)
class NonBlindOptions:
    """The network of `--then`.

    Raises:
        InputError: Options of another network are given.
    """

    then: Annotated[
        Literal["usrnet", "sftmd"] | None,
        Option(
            "Upscale the image again by USRNet, or by the SR network of a bundle, under the kernel "
            "that was found."
        ),
    ] = None
    usrnet: Annotated[
        Path | None, Option("Weights for --then usrnet instead of the shipped ones.")
    ] = None
    bundle: BundleOptions = field(default_factory=BundleOptions)

    def __post_init__(self) -> None:
        """Refuse options of another network than that of `then`."""
        if self.usrnet is not None and self.then != "usrnet":
            raise InputError("--usrnet is for --then usrnet")
        if self.then != "sftmd" and self.bundle != BundleOptions():
            raise InputError("--weights and --bundle are for --then sftmd")

    @contextmanager
    def open(
        self, scale: int, alignment: Alignment, device: FitDevice
    ) -> Generator[NonBlindStage | None, None, None]:
        """Open the network for the block; yield None without `--then`.

        Raises `InputError` if the bundle has another scale, or what opening the network raises.
        """
        if self.then is None:
            yield None
            return
        from ikc_deploy.offline.nonblind_stage import SftmdNonBlind, UsrnetNonBlind

        if self.then == "usrnet":
            from ikc_deploy.networks.usrnet import load_usrnet

            yield UsrnetNonBlind(load_usrnet(self.usrnet), scale, alignment, device)
            return
        with load(self._open_bundle(scale)) as upscaler:
            yield SftmdNonBlind(upscaler, alignment)

    def _open_bundle(self, scale: int) -> Bundle:
        """Return the bundle: shipped weights of `scale` unless others were given."""
        unchosen = self.bundle == BundleOptions()
        bundle = (BundleOptions(_WEIGHTS[scale]) if unchosen else self.bundle).open()
        found = bundle.manifest.scale
        if found != scale:
            raise InputError(
                f"{bundle.manifest.name} upscales x{found}, not x{scale}; give other --weights"
            )
        return bundle


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@click.argument("inputs", metavar="IMAGE...", nargs=-1, required=True, type=PATH)
@option_group(FitOptions, "fit")
@option_group(FlowFitSettings, "flow_fit")
@option_group(
    NonBlindOptions,
    "nonblind",
    words={"weights": ", ".join(f"{name} for x{scale}" for scale, name in _WEIGHTS.items())},
)
@option_group(IkeSwitches, "ike")
def main(
    inputs: tuple[Path, ...],
    fit: FitOptions,
    flow_fit: FlowFitSettings,
    nonblind: NonBlindOptions,
    ike: IkeSwitches,
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
    with needs_extra("offline", "ikc-offline"):
        from ikc_deploy.offline.outputs import check_output

        importlib.import_module("ikc_deploy.offline.job")
    images = find_images(inputs, fit.out, fit.reference, fit.true_kernel)
    for each in images:
        check_output(each.out)
    method = METHODS[fit.method]
    # Only what was changed: the methods' defaults differ, and not every method has every option.
    settings = method.settings(**changed_options(flow_fit), **changed_options(ike))
    with nonblind.open(fit.scale, flow_fit.alignment, flow_fit.device) as stage:
        jobs = _Jobs(fit, method, settings, nonblind.then, stage)
        if len(images) == 1:
            jobs.run(images[0], fit.method)
            return
        failures = jobs.run_all(images)
    note_skipped(inputs)
    print_table(f"{fit.method} x{fit.scale} (images: {len(jobs.rows)})", _HEADER, jobs.rows)
    if failures:
        heading = f"{len(failures)} of {len(images)} images failed:"
        raise InputError("\n".join([heading, *failures]))


_HEADER: Final = ("", "PSNR-Y dB", "bicubic dB", "kernel dB", "iterations")


@dataclass
class _Jobs:
    """The fits of a command, and the rows of its table."""

    fit: FitOptions
    method: Method
    settings: Any
    then: str | None
    nonblind: NonBlindStage | None
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def run_all(self, images: Sequence[OfflineInput]) -> list[str]:
        """Fit every image; return a line about each that failed."""
        failures = []
        for each in images:
            try:
                self.run(each, each.image.name)
            except (IkcError, OSError) as error:
                failures.append(f"'{each.image}': {' '.join(str(error).split())}")
        return failures

    def run(self, each: OfflineInput, name: str) -> None:
        """Fit an image with a progress bar and print its outcome; exit with 130 after Ctrl-C."""
        from ikc_deploy.offline.job import plan, run

        job = plan(
            each.image,
            self.fit.scale,
            self.method,
            self.settings,
            crop=self.fit.crop,
            reference=each.reference,
            true_kernel=each.true_kernel,
            nonblind=self.nonblind,
        )
        stop = threading.Event()
        with interruptible(stop) as interrupted, progress_bars() as bars:

            def show(done: int, total: int, losses: Losses) -> None:
                text = ", ".join(f"{loss} {value:.4g}" for loss, value in losses.items())
                bars.show(name, done, total, text)

            outcome = run(job, each.out, show, stop)
        for line in _lines(outcome, self.then):
            say(line)
        self.rows.append((each.image.name, *_cells(outcome)))
        if interrupted.is_set():
            done = len(outcome.result.history)
            note(f"stopped after {done} iterations; run the same command to continue")
            raise SystemExit(130)


def _cells(outcome: OfflineOutcome) -> tuple[str, ...]:
    """Return the cells of an image's row after its name, as in `_HEADER`."""
    figures = outcome.figures
    names = ("psnr_y", "psnr_y_bicubic", "kernel_psnr_of_its_peak")
    return (
        *(f"{figures[name]:.2f}" if name in figures else "" for name in names),
        str(len(outcome.result.history)),
    )


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
