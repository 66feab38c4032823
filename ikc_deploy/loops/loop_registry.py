"""All loops by name."""

from __future__ import annotations

from typing import Final

from ikc_deploy.loops.dan_loop import DAN
from ikc_deploy.loops.declaration import Loop
from ikc_deploy.loops.ikc_loop import IKC

LOOPS: Final[dict[str, Loop]] = {loop.name: loop for loop in (IKC, DAN)}
"""All loops by name."""


def find_loop(name: str) -> Loop:
    """Return the loop called `name`.

    Raises:
        ValueError: The name is unknown; the message lists all names.
    """
    if name not in LOOPS:
        raise ValueError(f"loop must be one of {', '.join(LOOPS)}, got {name!r}")
    return LOOPS[name]
