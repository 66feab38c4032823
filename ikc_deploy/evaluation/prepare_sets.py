"""Several prepared sets in one run: one for each source folder, and one for each sigma.

    DST/SET/...               with `by_folder`, SET being the name of a source folder
    DST/sigma1.8/...          with `gaussian8`, for each of the eight sigmas of the scale
    DST/SET/sigma1.8/...      with both

Every set is complete, with its HR images, so that `ikc-eval --lr` and training code pair it by
equal names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.datasets import refuse_equal_names
from ikc_deploy.evaluation.prepare import PrepareSettings, Progress, check_prepare, prepare
from ikc_deploy.files import real_path
from ikc_deploy.imaging.degrade import SIGMAS
from ikc_deploy.option_fields import Option, check_options


@dataclass(frozen=True)
class SetOptions:
    """Which sets are written."""

    by_folder: Annotated[
        bool,
        Option("Write one set for each source folder, DST/NAME.", flags=("--sets",)),
    ] = False
    gaussian8: Annotated[
        bool,
        Option("Write one set for each of the eight sigmas of Gaussian8, DST/sigma1.8 and so on."),
    ] = False

    def __post_init__(self) -> None:
        """Require values of the right type."""
        check_options(self)


@dataclass(frozen=True)
class PreparedSet:
    """One set to write, or written."""

    sources: tuple[Path, ...]
    """Images and folders."""
    destination: Path
    """Folder to write into."""
    settings: PrepareSettings
    """Settings of the degradation."""


def plan_sets(
    sources: Sequence[Path], destination: Path, settings: PrepareSettings, options: SetOptions
) -> list[PreparedSet]:
    """Return the sets; every one is checked as by `prepare`, and nothing is written.

    Raises:
        InputError: A source of `by_folder` is no folder, two have the same name, Gaussian8 is
            combined with other blurs, or as `prepare`.
        OutputError: As `prepare`.
    """
    if options.gaussian8 and (settings.sigma_range is not None or settings.convention != "ikc"):
        raise InputError(
            "--gaussian8 gives the sigmas; leave out --sigma, --sigma-range and --convention"
        )
    if options.by_folder:
        for source in sources:
            if not source.is_dir():
                raise InputError(f"--sets takes folders, and '{source}' is not one")
        refuse_equal_names(sources)
    found = [
        blurred
        for each in _folders(sources, destination, settings, options.by_folder)
        for blurred in _sigmas(each, options.gaussian8)
    ]
    for each in found:
        check_prepare(each.sources, each.destination, each.settings)
    return found


def prepare_sets(
    sets: Sequence[PreparedSet], progress: Progress = lambda *_: None
) -> Iterator[tuple[PreparedSet, dict[str, float]]]:
    """Write sets one after another; yield each with the sigmas of its images.

    Raises:
        InputError: As `prepare`.
        OutputError: As `prepare`.
    """
    for each in sets:
        yield each, prepare(each.sources, each.destination, each.settings, progress)


def _folders(
    sources: Sequence[Path], destination: Path, settings: PrepareSettings, by_folder: bool
) -> list[PreparedSet]:
    if not by_folder:
        return [PreparedSet(tuple(sources), destination, settings)]
    return [
        PreparedSet((source,), destination / real_path(source).name, settings) for source in sources
    ]


def _sigmas(each: PreparedSet, gaussian8: bool) -> list[PreparedSet]:
    if not gaussian8:
        return [each]
    return [
        PreparedSet(
            each.sources,
            each.destination / f"sigma{sigma:g}",
            replace(each.settings, sigma_range=(float(sigma), float(sigma))),
        )
        for sigma in SIGMAS[each.settings.scale]
    ]
