"""Engine targets: for which frames and GPUs to build, read from TOML into frozen settings."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Final

from ikc_deploy.errors import InputError
from ikc_deploy.plans import Profile, Shape
from ikc_deploy.runtime.frames import SMALLEST_SIDE

DEFAULT_PROFILE: Final = Profile((1, 64, 64), (1, 256, 256), (1, 540, 960))
"""One LR frame at a time, up to what becomes 4K at x4."""

HIGHEST_LEVEL: Final = 5
"""TensorRT's highest builder optimization level."""

_ENDS: Final = ("min", "opt", "max")


@dataclass(frozen=True)
class Target:
    """What an engine is built for."""

    compute_capabilities: tuple[str, ...] = ()
    """As "8.9"; empty for the GPU of the machine that builds."""
    profiles: tuple[Profile, ...] = (DEFAULT_PROFILE,)
    """LR frames that it will take. Every profile adds to building time and plan size."""
    workspace_mib: int | None = None
    """Bound of TensorRT's scratch memory in MiB; None for the whole GPU."""
    builder_level: int = 3
    """How hard to search for fast kernels, 0 to 5."""
    timing_cache: bool = True
    """Keep kernel timings in the user's cache for the next build. (`tensorrt` only: TensorRT for
    RTX times nothing when it builds.)"""

    def __post_init__(self) -> None:
        for capability in self.compute_capabilities:
            if not isinstance(capability, str) or not re.fullmatch(r"[1-9]\d*\.\d", capability):
                raise InputError(
                    f'compute_capabilities must be texts such as "8.9", got {capability!r}'
                )
        if not self.profiles:
            raise InputError("profiles must name at least one range of frames")
        for profile in self.profiles:
            if min(profile.min[1:]) < SMALLEST_SIDE:
                raise InputError(
                    f"frames have at least {SMALLEST_SIDE} pixels on each side, and min is "
                    f"{list(profile.min)}"
                )
        if self.workspace_mib is not None and not _is_count(self.workspace_mib, 1):
            raise InputError(f"workspace_mib must be at least 1, got {self.workspace_mib!r}")
        if not _is_count(self.builder_level, 0) or self.builder_level > HIGHEST_LEVEL:
            raise InputError(
                f"builder_level must lie in 0 to {HIGHEST_LEVEL}, got {self.builder_level!r}"
            )
        if not isinstance(self.timing_cache, bool):
            raise InputError(f"timing_cache must be true or false, got {self.timing_cache!r}")


def read_target(path: str | PathLike[str]) -> Target:
    """Read a target file.

    Raises `InputError` naming the file and the setting that is unknown or impossible.
    """
    file = Path(path)
    try:
        values = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(f"there is no target file at '{file}'") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"'{file}' is not valid TOML: {error}") from error
    try:
        return _parse(values)
    except InputError as error:
        raise InputError(f"in the target '{file}': {error}") from error


def parse_shape(text: str) -> Shape:
    """The shape of "HEIGHTxWIDTH" or "BATCHxHEIGHTxWIDTH" in LR pixels.

    Raises `InputError` if the text is neither.
    """
    match = re.fullmatch(r"(?:(\d{1,4})x)?(\d{1,6})x(\d{1,6})", text.strip().lower())
    if match is None:
        raise InputError(
            f"a shape is HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH in LR pixels, as 540x960, got '{text}'"
        )
    return int(match[1] or 1), int(match[2]), int(match[3])


def parse_shapes(text: str) -> Profile:
    """The profile of "MIN:OPT:MAX", each a shape as `parse_shape` reads it.

    Raises `InputError` if it is none, or not min <= opt <= max.
    """
    shapes = text.split(":")
    if len(shapes) != 3:
        raise InputError(f"shapes are MIN:OPT:MAX, as 64x64:256x256:540x960, got '{text}'")
    try:
        return Profile(*map(parse_shape, shapes))
    except InputError as error:
        raise InputError(f"shapes '{text}': {error}") from None


def _parse(values: dict[str, Any]) -> Target:
    known = {field.name for field in fields(Target)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            f"unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    settings = dict(values)
    if "compute_capabilities" in settings:
        listed = settings["compute_capabilities"]
        if not isinstance(listed, list):
            raise InputError(f"compute_capabilities must be a list, got {listed!r}")
        settings["compute_capabilities"] = tuple(listed)
    if "profiles" in settings:
        listed = settings["profiles"]
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise InputError("profiles must be [[profiles]] tables")
        settings["profiles"] = tuple(map(_parse_profile, listed))
    return Target(**settings)


def _parse_profile(values: dict[str, Any]) -> Profile:
    if set(values) != set(_ENDS) or not all(isinstance(values[end], list) for end in _ENDS):
        raise InputError("a profile has min, opt and max, each [batch, height, width]")
    return Profile(*(tuple(values[end]) for end in _ENDS))


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
