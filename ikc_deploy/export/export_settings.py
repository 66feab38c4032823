"""Settings of exports: the only statement of their types, defaults, ranges and help. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from ikc_deploy.bundle.manifest import FrameIO, Precision
from ikc_deploy.errors import InputError
from ikc_deploy.option_fields import Option, check_options

MAX_UNROLLED: Final = 30
"""Maximum number of corrections: each adds the nodes of two networks, and inference engines take
minutes to optimize thousands of nodes."""

MIN_USRNET_SIDE: Final = 32
"""Smallest side of the LR frames of a fourth graph in pixels, halos included."""

_SR_SIDE: Final = 512
"""Default side of the fourth graph's SR frames in pixels: about half a gigabyte of memory, and
tiles that are mostly not halo."""

_STEP: Final = 8
"""Divisor of default sides: the network works at an eighth of the SR resolution."""


@dataclass(frozen=True)
class ExportSettings:
    """The settings of an export.

    Raises:
        InputError: A value is invalid, or `calibrate` is given for another precision than "int8".
    """

    precision: Annotated[
        Precision,
        Option(
            "Precision of the graphs.",
            switches=(
                ("fp32", "Convolutions in float32."),
                ("fp16", "Convolutions in float16."),
                ("int8", "Convolutions in 8 bits, if the loss of PSNR is within its limit."),
            ),
        ),
    ] = "fp32"
    io: Annotated[
        FrameIO, Option("Layout of frames: N,H,W,3 uint8, or N,3,H,W float32 in [0,1].")
    ] = "uint8"
    calibrate: Annotated[
        Path | None,
        Option(
            "Folder of HR images for --int8: half of them calibrate, the others measure.",
            default="synthetic images",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse calibration images for a precision that uses none."""
        check_options(self)
        if self.calibrate is not None and self.precision != "int8":
            raise InputError("--calibrate is for --int8; omit it for other precisions")


@dataclass(frozen=True)
class UsrnetExport:
    """The settings of the fourth graph.

    Raises:
        InputError: `size` is too small.
    """

    weights: Path | None = None
    """Checkpoint of a USRNet of this project; None for the shipped one."""
    size: Annotated[
        tuple[int, int] | None,
        Option(
            "Height and width of the LR frames that the fourth graph accepts, for example 128x128; "
            "others are cut into such tiles.",
            default=f"for SR frames of about {_SR_SIDE}x{_SR_SIDE}",
            flags=("--res",),
        ),
    ] = None

    def __post_init__(self) -> None:
        """Require frames that are large enough for the graph."""
        if self.size is not None and min(self.size) < MIN_USRNET_SIDE:
            height, width = self.size
            raise InputError(
                f"frames of {height}x{width} are too small for a graph; set --res to at least "
                f"{MIN_USRNET_SIDE}x{MIN_USRNET_SIDE}"
            )

    def at(self, scale: int) -> tuple[int, int]:
        """Return height and width of the LR frames for a scale."""
        side = _STEP * round(_SR_SIDE / scale / _STEP)
        return self.size or (side, side)


@dataclass(frozen=True)
class SingleFileSettings:
    """The settings of a single file.

    Raises:
        InputError: A value is out of range, the precision is "int8", or both a blur and a number of
            corrections are given.
    """

    precision: Precision = "fp32"
    """Precision of the convolutions, the input and the output: "fp32" or "fp16"."""
    iters: Annotated[
        int | None,
        Option(
            "Corrections in the --single file.",
            default="the number that the weights recommend",
            minimum=0,
            maximum=MAX_UNROLLED,
        ),
    ] = None
    sigma: Annotated[
        float | None,
        Option(
            "Known blur of the --single file, in pixels of the output: nothing is estimated then."
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        check_options(self)
        if self.precision == "int8":
            raise InputError("a single file is in --fp32 or --fp16; --int8 is for bundles")
        if self.sigma is not None and self.iters is not None:
            raise InputError(
                "--sigma gives the blur and --iters corrects its estimate; give only one of them"
            )
