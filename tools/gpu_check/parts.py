"""The parts of a check, run in order: each passes, fails, or reports why it did not run."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ikc_deploy.errors import BackendError, EngineError, MissingExtraError

Facts = dict[str, Any]
"""Results of a part, as JSON values."""

Part = Callable[[], Facts]


class NotRunError(Exception):
    """The error of a part that cannot run on this machine; its message is the reason."""


class FailedError(Exception):
    """The error of a part that failed; its message is the reason."""


@dataclass(frozen=True)
class PartOutcome:
    """The outcome of a part."""

    part: str
    """Name of the part."""
    status: Literal["passed", "failed", "not run"]
    """Status of the part."""
    reason: str
    """Reason why it failed or did not run; empty if it passed."""
    seconds: float
    """Duration in seconds."""
    facts: Facts
    """Results of the part."""


def run_parts(
    parts: Mapping[str, Part], budget: float, report: Callable[[PartOutcome], None]
) -> list[PartOutcome]:
    """Run the parts of a check in order.

    Args:
        parts: Parts by name.
        budget: Time in seconds after which no further part starts.
        report: Called with the outcome of each part.
    """
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
    except Exception as error:  # an error in one part must not prevent the others
        where = traceback.extract_tb(error.__traceback__)[-1]
        status = "failed"
        reason = (
            f"{type(error).__name__}: {error} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
        )
    return PartOutcome(name, status, reason, round(time.monotonic() - started, 2), facts)
