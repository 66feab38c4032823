"""Handling of existing outputs: refuse, replace or keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.folders import names
from ikc_deploy.option_fields import Option, check_options


@dataclass(frozen=True)
class ExistingOutputs:
    """How existing outputs are handled.

    Raises:
        InputError: Both are chosen.
    """

    overwrite: Annotated[
        bool,
        Option(
            "Replace outputs that exist; without it or --skip-existing, they are refused before "
            "any work."
        ),
    ] = False
    skip_existing: Annotated[
        bool,
        Option("Keep outputs that exist, and upscale only the other inputs.", heading="Output"),
    ] = False

    def __post_init__(self) -> None:
        """Require at most one of the two."""
        check_options(self)
        if self.overwrite and self.skip_existing:
            raise InputError("give --overwrite or --skip-existing, not both")

    def skips(self, target: Path) -> bool:
        """Return whether `target` exists and is kept."""
        return self.skip_existing and target.exists()

    def check(self, targets: Sequence[Path]) -> None:
        """Refuse existing files unless they may be replaced.

        Args:
            targets: All files that would be written, without those for which `skips` is True.

        Raises:
            InputError: A target exists; the message names the first few.
        """
        if self.overwrite:
            return
        found = [path for path in targets if path.exists()]
        if len(found) == 1:
            raise InputError(
                f"'{found[0]}' exists; give --overwrite to replace it, --skip-existing to keep it, "
                "or another output"
            )
        if found:
            raise InputError(
                f"{len(found)} outputs exist ({names(found)}); give --overwrite to replace them, "
                "--skip-existing to keep them, or another output folder"
            )
