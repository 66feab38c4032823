"""Settings that the offline methods share. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from ikc_deploy.option_fields import Option, check_options

Alignment = Literal["centre", "fkp"]
"""Position of LR pixels in the HR image; see `ikc_deploy.offline.forward_model`."""

FitDevice = Literal["cpu", "cuda"]
"""Torch device of a fit."""

ITERATIONS: Final = Option(
    "Number of iterations; the FKP methods continue an earlier fit if it is larger.",
    default="the method's",
    minimum=1,
)
"""The option `--iterations`; its default depends on the method."""


@dataclass(frozen=True)
class FitSettings:
    """The settings of every method.

    Raises:
        InputError: A value is out of range.
    """

    iterations: Annotated[int | None, ITERATIONS] = None
    seed: Annotated[int, Option("Seed of all random numbers of the fit.", minimum=0)] = 0
    device: Annotated[
        FitDevice,
        Option("Torch device. Two runs with the same seed are bit-equal only on the CPU."),
    ] = "cpu"

    def __post_init__(self) -> None:
        """Require every option in its range."""
        check_options(self)


@dataclass(frozen=True)
class FlowFitSettings(FitSettings):
    """The settings of the methods that take their kernel from a kernel flow.

    Raises:
        InputError: A value is out of range.
    """

    alignment: Annotated[
        Alignment,
        Option(
            "Position of LR pixels in the HR image: as in resizing, or as in FKP's test images. "
            "The fit does not depend on it."
        ),
    ] = "centre"
    prior: Annotated[
        Path | None,
        Option("Weights of the kernel flow instead of the shipped ones."),
    ] = None
