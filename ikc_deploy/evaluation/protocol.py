"""The measurement of blind upscaling through the runtime, for `ikc-eval`.

Every HR image of a dataset is degraded by every blur of the protocol: the eight Gaussians of
Gaussian8, unless others are given. For each of these cases the blind loop runs once and every
step's image is scored, together with two references: bicubic upscaling, and F given the true
kernel. No step is selected with the ground truth: that would be an oracle, which a user without
the HR image cannot reach.

This module produces plain records; `evaluation.summary` computes their means and intervals, and
`evaluation.render` writes both. Needs only numpy, Pillow and the runtime; scikit-image for SSIM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Manifest
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import Blur, BlurSet, Filter, UnknownBlur
from ikc_deploy.evaluation.datasets import Dataset, open_datasets, read_hr
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.records import Method, Record
from ikc_deploy.imaging.metrics import kernel_psnr, psnr_y, ssim_y
from ikc_deploy.imaging.resize import upscale_bicubic
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.upscaler import Upscaler

Progress = Callable[[str, int, int], None]
"""Callback with a dataset's name, the number of cases done and the number of all cases."""


@dataclass(frozen=True)
class Protocol:
    """The degradation of the HR images."""

    blurs: BlurSet
    """Blurs, each applied to every image."""
    degradation: Degradation = field(default_factory=Degradation)
    """Degradation after the blur."""

    @property
    def title(self) -> str:
        """Title for people: "Gaussian8", "Gaussians, noise 10"."""
        return self.blurs.title + self.degradation.title


@dataclass(frozen=True, eq=False)
class KernelExample:
    """The true and the estimated kernels of one image under one blur."""

    image: str
    """File name of the image."""
    blur: str
    """Name of the blur."""
    true: NDArray[np.float64]
    """True kernel `[k,k]`."""
    estimated: NDArray[np.floating]
    """Kernels `[t+1,k,k]` of steps 0..t."""


@dataclass(frozen=True)
class EvaluationReport:
    """The measurement of one bundle on one or more datasets."""

    manifest: Manifest
    """Manifest of the bundle."""
    protocol: Protocol
    """Degradation of the HR images."""
    records: tuple[Record, ...]
    """Scores in the order of dataset, image and blur, then bicubic, steps 0..t, true kernel."""
    estimate: Estimate = "full"
    """Method of estimating the blur."""
    kernels: tuple[KernelExample, ...] = ()
    """Kernels of the first image, for each blur whose kernel fits the bundle's size."""
    self_ensemble: bool = False
    """Whether images of the networks are means over flips and rotations."""


@dataclass(frozen=True, eq=False)
class EvaluationCase:
    """A case: one image under one blur."""

    dataset: str
    """Name of the dataset."""
    image: str
    """File name of the image."""
    hr: NDArray[np.uint8]
    """HR image `[H,W,3]`."""
    blur: Blur | Filter | UnknownBlur
    """Blur of the LR image."""

    def record(
        self,
        image: NDArray[np.uint8],
        border: int,
        method: Method,
        step: int | None = None,
        sigma_estimate: float | None = None,
        kernel_db: float | None = None,
    ) -> Record:
        """Return the scores of an image `[H,W,3]`, without `border` pixels at each edge."""
        return Record(
            dataset=self.dataset,
            image=self.image,
            blur=self.blur.name,
            sigma=self.blur.sigma,
            method=method,
            step=step,
            psnr_y=psnr_y(image, self.hr, border),
            ssim_y=ssim_y(image, self.hr, border),
            sigma_estimate=sigma_estimate,
            kernel_psnr=kernel_db,
        )


def evaluate(
    upscaler: Upscaler,
    folders: Sequence[Path],
    protocol: Protocol,
    progress: Progress = lambda *_: None,
) -> EvaluationReport:
    """Measure an upscaler's bundle on folders of HR images, at every step up to its `iters`.

    Every image is checked before the first is measured.

    Args:
        upscaler: Upscaler to measure; it estimates the blur by its own `estimate`, "full" or
            "crops".
        folders: Folders of HR images, one dataset each.
        protocol: Degradation of the HR images.
        progress: Called after every case.

    Raises:
        InputError: A folder or image is unusable, two folders have the same name, the protocol
            cannot measure the bundle, or the upscaler's `estimate` is "track".
        BackendError: The networks produce kernel codes that are not finite.
    """
    check_bundle(upscaler, protocol.blurs)
    if upscaler.estimate == "track":
        raise InputError('single images cannot be tracked; evaluate "full" or "crops"')
    records: list[Record] = []
    kernels: dict[str, KernelExample] = {}
    for dataset in open_datasets(folders, upscaler.scale):
        records.extend(_measure(upscaler, dataset, protocol, kernels, progress))
    return EvaluationReport(
        upscaler.bundle.manifest,
        protocol,
        tuple(records),
        upscaler.estimate,
        tuple(kernels.values()),
        upscaler.self_ensemble,
    )


def check_bundle(upscaler: Upscaler, blurs: BlurSet) -> None:
    """Raise `InputError` if the bundle cannot be measured under these blurs."""
    bundle = upscaler.bundle
    if bundle.manifest.io != "uint8":
        raise InputError(
            f"the bundle '{bundle.path}' takes float frames, but quality is measured on 8-bit "
            "frames; export it with --io uint8"
        )
    if blurs.kind == "kernels":
        return
    low, high = bundle.basis.sigma_range
    for blur in blurs.blurs:
        if blur.sigma is not None and not low <= blur.sigma <= high:
            raise InputError(
                f"the bundle '{bundle.path}' covers sigma {low:g} to {high:g} and cannot be given "
                f"the true kernel of sigma {blur.sigma:g}; measure other sigmas, or weights "
                "whose range contains it"
            )


def _measure(
    upscaler: Upscaler,
    dataset: Dataset,
    protocol: Protocol,
    kernels: dict[str, KernelExample],
    progress: Progress,
) -> Iterator[Record]:
    blurs = protocol.blurs.blurs
    total = len(dataset.paths) * len(blurs)
    progress(dataset.name, 0, total)
    for row, path in enumerate(dataset.paths):
        hr = read_hr(path, upscaler.scale)
        for column, blur in enumerate(blurs):
            case = EvaluationCase(dataset.name, path.name, hr, blur)
            lr = protocol.degradation.downscale(blur.apply(hr), upscaler.scale, path.name)
            yield from measure_case(upscaler, case, lr, upscaler.scale, kernels)
            progress(dataset.name, row * len(blurs) + column + 1, total)


def measure_case(
    upscaler: Upscaler,
    case: EvaluationCase,
    lr: NDArray[np.uint8],
    border: int,
    kernels: dict[str, KernelExample],
) -> Iterator[Record]:
    """Yield the scores of an LR image: bicubic, blind steps, and the true kernel if it fits.

    Args:
        upscaler: Upscaler to measure.
        case: HR image and blur.
        lr: LR image `[H,W,3]`.
        border: Number of HR pixels to ignore at each edge.
        kernels: Kernels by name of the blur; those of this image are added for new blurs.
    """
    basis = upscaler.bundle.basis
    yield case.record(upscale_bicubic(lr, upscaler.scale), border, "bicubic")
    blind = upscaler(lr, steps=True)
    kernel = case.blur.padded(basis.kernel_size)
    for step, (image, code) in enumerate(zip(blind.steps, blind.codes, strict=True)):
        decibels = None if kernel is None else kernel_psnr(basis.decode(code), kernel)
        sigma = float(basis.sigma_of_code(code))
        yield case.record(image, border, "blind", step, sigma, decibels)
    if kernel is not None:
        # The first image's example of a blur is kept.
        example = KernelExample(case.image, case.blur.name, kernel, basis.decode(blind.codes))
        kernels.setdefault(case.blur.name, example)
        # As a code: of a kernel outside the basis, this column is the nearest one inside.
        code = basis.take_levels(basis.encode(kernel), blind.codes[0])
        yield case.record(upscaler(lr, code=code).image, border, "true kernel")
