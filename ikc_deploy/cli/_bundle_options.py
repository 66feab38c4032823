"""Options that choose a bundle, for all commands that run or write one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.cli._ui import status
from ikc_deploy.errors import InputError
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.option_fields import Option
from ikc_deploy.weights import DEFAULT_WEIGHTS, is_shipped_name

WEIGHTS: Final = Option(
    "Shipped weights, a checkpoint file, or random:ARCHITECTURE (x2, x3, x4, x4-lite, ...).",
    default=DEFAULT_WEIGHTS,
)
"""The option `--weights`, for one name or several."""

BUNDLE: Final = Option("Folder written by ikc-export, instead of --weights.", flags=("--bundle",))
"""The option `--bundle`, for one folder or several."""


@dataclass(frozen=True)
class BundleOptions:
    """The options that choose a bundle.

    Raises:
        InputError: Both options are given.
    """

    weights: Annotated[str | None, WEIGHTS] = None
    folder: Annotated[Path | None, BUNDLE] = None

    def __post_init__(self) -> None:
        if self.weights is not None and self.folder is not None:
            raise InputError("give --weights or --bundle, not both")

    @property
    def chosen_weights(self) -> str:
        """Weights, the default ones if none are given."""
        return DEFAULT_WEIGHTS if self.weights is None else self.weights

    def open(self, precision: Precision = "fp32") -> Bundle:
        """Return the bundle that the options choose; weights are exported on first use.

        Args:
            precision: Precision of the export; ignored for a folder, which has its own.

        Raises:
            IkcError: The bundle cannot be opened, or the weights cannot be exported.
        """
        if self.folder is not None:
            name = str(self.folder)
            if is_shipped_name(name):
                raise InputError(
                    f"'{name}' is a name of shipped weights, not a bundle; give --weights {name}"
                )
            return Bundle.open(self.folder)
        name = self.chosen_weights
        with status(f"{name}, {precision}: opening, or exporting on first use"):
            return default_bundle(name, precision)
