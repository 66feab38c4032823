"""Engine targets: for which frames and GPUs to build, read from TOML into frozen settings."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

from ikc_deploy.bundle.engine_store import Profile, Shape
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.frames import MIN_SIDE
from ikc_deploy.toml_settings import SettingError, read_settings, read_toml, shown

DEFAULT_PROFILE: Final = Profile((1, 64, 64), (1, 256, 256), (1, 540, 960))
"""One LR frame at a time, up to what becomes 4K at x4."""

MAX_WORKSPACE_MIB: Final = 2**24
"""16 TiB; more than any GPU has, and its bytes are a number that TensorRT takes."""

MAX_SHAPE: Final = (9999, 999_999, 999_999)
"""Batch, height and width as `parse_shape` reads them."""

HIGHEST_LEVEL: Final = 5
"""TensorRT's highest builder optimization level."""

_INSTALLED_IN: Final = ("ikc-deploy", "engines")
"""Below `share` of the environment; see `data_files` in setup.cfg."""


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
            if not re.fullmatch(r"[1-9]\d*\.\d", capability, re.ASCII):
                raise InputError(
                    f'compute_capabilities must be texts such as "8.9", got {shown(capability)}'
                )
        if not self.profiles:
            raise InputError("profiles must name at least one range of frames")
        for profile in self.profiles:
            if min(profile.min[1:]) < MIN_SIDE:
                raise InputError(
                    f"frames have at least {MIN_SIDE} pixels on each side, and min is "
                    f"{list(profile.min)}"
                )
            if any(size > most for size, most in zip(profile.max, MAX_SHAPE, strict=True)):
                raise InputError(
                    f"frames have at most {list(MAX_SHAPE)} as batch, height and width, and "
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


def shipped_targets() -> dict[str, Path]:
    """The target files of the project by name, wherever one works: `hopper`, `rtx-desktop`, ...

    They lie in `engines/` of a checkout, and an installation brings them along.
    """
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "setup.cfg").is_file():
        found: Iterable[Path] = (checkout / "engines").glob("*.toml")
    else:
        try:
            listed = importlib.metadata.files("ikc-deploy") or []
        except importlib.metadata.PackageNotFoundError:
            listed = []
        installed = [entry for entry in listed if entry.parts[-3:-1] == _INSTALLED_IN]
        found = (Path(str(entry.locate())) for entry in installed)
    return {path.stem: path for path in sorted(found) if path.suffix == ".toml"}


def read_target(path: str | PathLike[str]) -> Target:
    """Read a target: a TOML file, or else the name of one of `shipped_targets`.

    Raises `InputError` naming the file and the setting that is unknown or impossible.
    """
    file = Path(path)
    shipped = shipped_targets()
    if not file.exists():
        file = shipped.get(str(path), file)
    try:
        return _parse(read_toml(file, "target file"))
    except SettingError as error:
        names = ", ".join(shipped)
        raise InputError(f"{error}; the names of shipped targets are {names}") from error
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
    try:
        return read_settings(Target, values)
    except SettingError as error:
        raise InputError(str(error)) from None
