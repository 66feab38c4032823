"""Parts of a check, run one after the other: each passes, fails, or says why it did not run."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ikc_deploy.errors import BackendError, EngineError, MissingExtraError

Facts = dict[str, Any]
"""What a part found, as JSON."""

Part = Callable[[], Facts]


class NotRunError(Exception):
    """Why a part cannot run on this machine."""


class FailedError(Exception):
    """What a part found wrong."""


@dataclass(frozen=True)
class PartOutcome:
    """What became of a part."""

    part: str
    status: Literal["passed", "failed", "not run"]
    reason: str
    """Why it failed or did not run; empty if it passed."""
    seconds: float
    facts: Facts


def run_parts(
    parts: Mapping[str, Part], budget: float, report: Callable[[PartOutcome], None]
) -> list[PartOutcome]:
    """Run `parts` in order; those that would begin after `budget` seconds do not run."""
    outcomes = []
    began = time.monotonic()
    for name, part in parts.items():
        started = time.monotonic()
        if started - began > budget:
            outcome = PartOutcome(name, "not run", f"{budget:.0f} seconds were over", 0.0, {})
        else:
            outcome = _run(name, part)
        report(outcome)
        outcomes.append(outcome)
    return outcomes


def require(holds: bool, otherwise: str) -> None:
    """Raise `FailedError` unless `holds`."""
    if not holds:
        raise FailedError(otherwise)


def opened(opener: Callable[[], Any]) -> Any:
    """Return `opener()`; raise `NotRunError` if that is not possible on this machine."""
    try:
        return opener()
    except (BackendError, EngineError, MissingExtraError, ImportError) as error:
        raise NotRunError(str(error)) from error


def _run(name: str, part: Part) -> PartOutcome:
    started = time.monotonic()
    status: Literal["passed", "failed", "not run"] = "passed"
    reason, facts = "", {}
    try:
        facts = part()
    except NotRunError as error:
        status, reason = "not run", str(error)
    except FailedError as error:
        status, reason = "failed", str(error)
    except Exception as error:  # one part must not take the others along
        where = traceback.extract_tb(error.__traceback__)[-1]
        status = "failed"
        reason = (
            f"{type(error).__name__}: {error} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
        )
    return PartOutcome(name, status, reason, round(time.monotonic() - started, 2), facts)
