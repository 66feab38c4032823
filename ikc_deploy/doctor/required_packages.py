"""The packages that ikc-deploy and its commands need, and the shell commands that install them.

Versions come from the metadata of installed packages; nothing is imported.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from packaging.requirements import Requirement

from ikc_deploy.benchmarks.machine import installed_version
from ikc_deploy.onnx_runtime import FOR_CPUS, FOR_GPUS

DISTRIBUTION: Final = "ikc-deploy"

BASE: Final = ""
"""Name in place of an extra for the packages that every installation needs."""

COMMANDS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "ikc-upscale": (
        (BASE, ""),
        ("video", "video files"),
        ("window", "a camera in a window"),
        ("ray", "many actors"),
        ("export", "weights not exported yet"),
    ),
    "ikc-export": ((BASE, ""), ("export", "")),
    "ikc-inspect": ((BASE, ""),),
    "ikc-train": ((BASE, ""), ("training", "")),
    "ikc-eval": ((BASE, ""), ("evaluation", ""), ("export", "weights not exported yet")),
    "ikc-prepare": ((BASE, ""),),
    "ikc-bench": ((BASE, ""), ("export", "weights not exported yet")),
    "ikc-import": ((BASE, ""), ("export", "")),
    "ikc-offline": ((BASE, ""), ("offline", "")),
    "ikc-web": ((BASE, ""), ("web", ""), ("export", "weights not exported yet")),
}
"""Extras that every command needs, each with the part of the command that needs it ("" for all)."""

_STAND_INS: Final = {FOR_GPUS: FOR_CPUS, FOR_CPUS: FOR_GPUS}
"""Distributions that contain the same modules as the required one."""

_EXTRA: Final = re.compile(r"\bextra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True)
class Package:
    """A distribution that ikc-deploy or one of its extras requires."""

    name: str
    version: str | None
    """Installed version; None if it is not installed."""
    extras: tuple[str, ...]
    """Extras that require it; `BASE` among them if every installation needs it."""
    requirement: str
    """Requirement for pip."""


@dataclass(frozen=True)
class Gap:
    """Packages that a command lacks."""

    purpose: str
    """Part of the command that needs them; empty for the whole command."""
    missing: tuple[str, ...]
    """Names of the missing packages."""
    fix: str
    """Shell command that installs them."""


@dataclass(frozen=True)
class Command:
    """One of the project's commands."""

    name: str
    ready: bool
    """Whether the command runs, possibly without some of its parts."""
    gaps: tuple[Gap, ...]
    """Missing packages."""


def required_packages() -> tuple[Package, ...]:
    """Return the packages that ikc-deploy requires on this platform, extras included.

    Returns:
        The packages by name; empty if ikc-deploy is not installed.
    """
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    return merge_requirements(requirements)


def merge_requirements(requirements: Iterable[str]) -> tuple[Package, ...]:
    """Return the packages of requirements that apply to this platform.

    Args:
        requirements: Values of `Requires-Dist` in package metadata.

    Returns:
        One `Package` for each distribution, sorted by name.
    """
    extras: dict[str, list[str]] = {}
    wanted: dict[str, str] = {}
    for requirement in map(Requirement, requirements):
        name, marker = requirement.name.lower(), requirement.marker
        named = _EXTRA.findall(str(marker)) or [BASE]
        here = [extra for extra in named if marker is None or marker.evaluate({"extra": extra})]
        # The dev extra requires ikc-deploy's own other extras, which are listed anyway.
        if not here or name == DISTRIBUTION:
            continue
        extras.setdefault(name, []).extend(here)
        requirement.marker = None
        wanted.setdefault(name, str(requirement))
    return tuple(
        Package(name, _version(name), tuple(extras[name]), wanted[name]) for name in sorted(extras)
    )


def check_command(
    name: str, needs: Iterable[tuple[str, str]], packages: Iterable[Package]
) -> Command:
    """Return whether a command runs and which packages it lacks.

    Args:
        name: Name of the command.
        needs: Its extras and the parts that need them, as in `COMMANDS`.
        packages: The required packages.

    Returns:
        The command.
    """
    absent = [package for package in packages if package.version is None]
    gaps = []
    for extra, purpose in needs:
        missing = [package for package in absent if extra in package.extras]
        if missing:
            names = tuple(package.name for package in missing)
            gaps.append(Gap(purpose, names, _fix(extra, missing)))
    return Command(name, all(gap.purpose for gap in gaps), tuple(gaps))


def _version(name: str) -> str | None:
    stand_in = _STAND_INS.get(name)
    return installed_version(name, *([stand_in] if stand_in else []))


def _fix(extra: str, missing: Iterable[Package]) -> str:
    if extra == BASE:
        wanted = " ".join(f"'{package.requirement}'" for package in missing)
        return f"pip install {wanted}"
    return f"pip install '{DISTRIBUTION}[{extra}]'"
