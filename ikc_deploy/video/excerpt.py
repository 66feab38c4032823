"""The part of a clip that is written."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Excerpt:
    """The part of the source that is written, in seconds of its clock."""

    origin: Fraction = Fraction(0)
    """Time that becomes 0 in the output."""
    begin: Fraction | None = None
    """Time before which packets are omitted; None for no limit."""
    end: Fraction | None = None
    """Time from which on packets are omitted; None for no limit."""

    def holds(self, time: Fraction) -> bool:
        """Return whether a packet that begins at `time` is part of the excerpt."""
        early = self.begin is not None and time < self.begin
        return not early and (self.end is None or time < self.end)
