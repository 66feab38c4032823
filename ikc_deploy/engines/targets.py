"""Engine targets: frames and GPUs to build for, read from TOML into frozen settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

from ikc_deploy.bundle.engine_store import Profile, Shape
from ikc_deploy.errors import InputError
from ikc_deploy.parsing import read_toml
from ikc_deploy.runtime.frames import MIN_SIDE
from ikc_deploy.shipped_files import find_shipped, shipped_files
from ikc_deploy.text import shown
from ikc_deploy.typed_values import SettingError, read_settings

DEFAULT_PROFILE: Final = Profile((1, 64, 64), (1, 256, 256), (1, 540, 960))
"""Default range of LR frames: one at a time, up to 4K at x4."""

MAX_WORKSPACE_MIB: Final = 2**24
"""Largest workspace in MiB: 16 TiB, more than any GPU has, and in bytes valid for TensorRT."""

MAX_SHAPE: Final = (9999, 999_999, 999_999)
"""Largest batch, height and width, as in `parse_shape`."""

HIGHEST_LEVEL: Final = 5
"""TensorRT's highest builder optimization level."""


@dataclass(frozen=True)
class Target:
    """The settings of a build of an engine.

    Raises:
        InputError: A setting is out of range.
    """

    compute_capabilities: tuple[str, ...] = ()
    """Compute capabilities such as "8.9"; empty for the GPU of the machine that builds."""
    profiles: tuple[Profile, ...] = (DEFAULT_PROFILE,)
    """Ranges of LR frames. Every profile increases build time and plan size."""
    workspace_mib: int | None = None
    """Limit of TensorRT's workspace memory in MiB; None for the memory of the GPU."""
    builder_level: int = 3
    """TensorRT's builder optimization level, 0 to 5: higher searches longer for fast kernels."""
    timing_cache: bool = True
    """Whether to keep kernel timings in the user's cache for later builds. Has no effect with
    `tensorrt-rtx`, which measures no kernels when it builds."""

    def __post_init__(self) -> None:
        """Require valid compute capabilities, profiles for frames, and a workspace in range."""
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"[1-9]\d*\.\d", capability, re.ASCII):
                raise InputError(
                    f'compute_capabilities must be strings such as "8.9", got {shown(capability)}'
                )
        if not self.profiles:
            raise InputError("profiles must have at least one range of frames")
        for profile in self.profiles:
            if min(profile.min[1:]) < MIN_SIDE:
                raise InputError(
                    f"frames must have at least {MIN_SIDE} pixels on each side, but min is "
                    f"{list(profile.min)}"
                )
            if any(size > most for size, most in zip(profile.max, MAX_SHAPE, strict=True)):
                raise InputError(
                    f"batch, height and width must be at most {list(MAX_SHAPE)}, but "
                    f"max is {shown(list(profile.max))}"
                )
        if self.workspace_mib is not None and not 1 <= self.workspace_mib <= MAX_WORKSPACE_MIB:
            raise InputError(
                f"workspace_mib must lie in 1 to {MAX_WORKSPACE_MIB}, got "
                f"{shown(self.workspace_mib)}"
            )
        if not 0 <= self.builder_level <= HIGHEST_LEVEL:
            raise InputError(
                f"builder_level must lie in 0 to {HIGHEST_LEVEL}, got {shown(self.builder_level)}"
            )


def read_target(path: str | PathLike[str]) -> Target:
    """Read a target.

    Args:
        path: TOML file, or else the name of a shipped target: "hopper", "rtx-desktop", ...

    Raises:
        InputError: The file is missing, or a setting is unknown or invalid; the message names both.
    """
    file = find_shipped(Path(path), "engines")
    try:
        return _parse(read_toml(file, "target file"))
    except SettingError as error:
        names = ", ".join(shipped_files("engines"))
        raise InputError(f"{error}; the names of shipped targets are {names}") from error
    except InputError as error:
        raise InputError(f"in the target '{file}': {error}") from error


def parse_shape(text: str) -> Shape:
    """Return the shape (batch, height, width) of "HEIGHTxWIDTH" or "BATCHxHEIGHTxWIDTH".

    Sizes are in LR pixels; the batch is 1 by default.

    Raises:
        InputError: The text is neither.
    """
    match = re.fullmatch(r"(?:(\d{1,4})x)?(\d{1,6})x(\d{1,6})", text.strip().lower())
    if match is None:
        raise InputError(
            f"invalid shape '{text}': expected HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH in LR "
            "pixels, for example 540x960"
        )
    return int(match[1] or 1), int(match[2]), int(match[3])


def parse_shapes(text: str) -> Profile:
    """Return the profile that "MIN:OPT:MAX" gives, each a shape as in `parse_shape`.

    Raises:
        InputError: The text has another form, or not min <= opt <= max.
    """
    shapes = text.split(":")
    if len(shapes) != 3:
        raise InputError(f"invalid shapes '{text}': expected MIN:OPT:MAX, as 64x64:256x256:540x960")
    try:
        return Profile(*map(parse_shape, shapes))
    except InputError as error:
        raise InputError(f"shapes '{text}': {error}") from None


def _parse(values: dict[str, Any]) -> Target:
    try:
        return read_settings(Target, values)
    except SettingError as error:
        raise InputError(str(error)) from None
