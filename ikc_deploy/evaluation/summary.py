"""Means over images and blurs, with bootstrap confidence intervals.

An interval shows how far the mean would move with other images of the same kind: images are drawn
repeatedly with replacement, each with all its blurs, and the interval is the middle 95 % of the
means (percentile bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13). All rows of a dataset share the draws, so equal columns get equal intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.evaluation.records import Method, Record

CONFIDENCE: Final = 0.95
CONFIDENCE_TEXT: Final = f"{100 * CONFIDENCE:g} %"
RESAMPLES: Final = 5000

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Mean:
    """A mean and its 95 % confidence interval."""

    value: float
    """Mean over the images."""
    interval: tuple[float, float] | None
    """Lower and upper bound; None for a single image, which does not determine an interval."""


@dataclass(frozen=True)
class SummaryRow:
    """The means of one method of upscaling."""

    method: Method
    """Method of upscaling."""
    step: int | None
    """Number of corrections; None unless `method` is "blind"."""
    psnr_y: Mean
    """PSNR of luma in dB."""
    ssim_y: Mean
    """SSIM of luma."""
    sigma_mae: Mean | None
    """Mean absolute error of sigma in HR pixels; None where no blur has a sigma."""
    kernel_psnr: Mean | None
    """PSNR of the kernel in dB; None where no kernel fits the bundle's size."""

    @property
    def label(self) -> str:
        """Label for people: "step 3", "true kernel"."""
        return self.method if self.step is None else f"step {self.step}"


@dataclass(frozen=True)
class BlurSummary:
    """The means over the images of a dataset under one blur."""

    name: str
    """Name of the blur."""
    sigma: float | None
    """Sigma of the blur in HR pixels; None if it is not an isotropic Gaussian."""
    rows: tuple[SummaryRow, ...]
    """Bicubic, steps 0..t, and the true kernel if it fits the bundle."""


@dataclass(frozen=True)
class DatasetSummary:
    """The means over the images of a dataset: over all blurs together, and by blur."""

    name: str
    """Name of the dataset."""
    images: int
    """Number of images."""
    rows: tuple[SummaryRow, ...]
    """Bicubic, steps 0..t, and the true kernel if any kernel fits the bundle."""
    blurs: tuple[BlurSummary, ...]
    """Means by blur."""


def summarise(records: Iterable[Record], seed: int = 0) -> tuple[DatasetSummary, ...]:
    """Return the summary of every dataset, in the order of the records.

    Args:
        records: Scores as `protocol.evaluate` returns them.
        seed: Seed of the bootstrap.
    """
    return tuple(
        DatasetSummary(
            name,
            images=len(_grouped(found, lambda record: record.image)),
            rows=_rows(found, seed),
            blurs=tuple(
                BlurSummary(blur, same[0].sigma, _rows(same, seed))
                for blur, same in _grouped(found, lambda record: record.blur).items()
            ),
        )
        for name, found in _grouped(records, lambda record: record.dataset).items()
    )


def bootstrap_interval(values: NDArray[np.floating], seed: int) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of the mean of independent values.

    Args:
        values: Values `[n]`.
        seed: Seed of the resampling.

    Returns:
        Lower and upper bound (percentile bootstrap); None for fewer than two values.
    """
    if len(values) < 2:
        return None
    means = _draws(len(values), seed) @ values / len(values)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(count: int, seed: int) -> NDArray[np.float64]:
    """Return `[RESAMPLES,count]`: how often each of `count` values occurs in each resample."""
    random = np.random.default_rng(seed)
    return random.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)


def _rows(records: Sequence[Record], seed: int) -> tuple[SummaryRow, ...]:
    return tuple(
        _row(method, step, found, seed)
        for (method, step), found in _grouped(records, lambda r: (r.method, r.step)).items()
    )


def _row(method: Method, step: int | None, records: Sequence[Record], seed: int) -> SummaryRow:
    images = list(_grouped(records, lambda record: record.image).values())

    def mean(value: Callable[[Record], float]) -> Mean:
        return _mean([[value(record) for record in image] for image in images], seed)

    def mean_if_known(value: Callable[[Record], float | None]) -> Mean | None:
        known = [[x for x in map(value, image) if x is not None] for image in images]
        return _mean(known, seed) if all(known) else None

    return SummaryRow(
        method,
        step,
        psnr_y=mean(lambda record: record.psnr_y),
        ssim_y=mean(lambda record: record.ssim_y),
        sigma_mae=mean_if_known(lambda record: record.sigma_error),
        kernel_psnr=mean_if_known(lambda record: record.kernel_psnr),
    )


def _mean(images: Iterable[Sequence[float]], seed: int) -> Mean:
    # An image's own mean comes first: its blurs are not independent draws.
    means = np.array([np.mean(values) for values in images])
    return Mean(float(means.mean()), bootstrap_interval(means, seed))


def _grouped(records: Iterable[Record], key: Callable[[Record], _Key]) -> dict[_Key, list[Record]]:
    groups: dict[_Key, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups
