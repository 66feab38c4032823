"""The offline methods by name; each is a module with settings and a `Fit`.

Torch is imported with the module of a method, not with this list.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from ikc_deploy.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ikc_deploy.offline.optimize import Fit

MethodName = Literal["dip-fkp", "kernelgan-fkp", "ike"]
"""Name of an offline method."""


@dataclass(frozen=True)
class Method:
    """An offline method: finds the SR image and, for some methods, the blur kernel."""

    name: MethodName
    """Name as in `ikc-offline --method`."""
    module: str
    """Name of the module in this package."""
    fit_class: str
    """Name of the `Fit` in that module."""
    settings_class: str
    """Name of the frozen, validated dataclass of the settings; `iterations`, `seed` and `device`
    are among its fields."""
    finds_kernel: bool
    """Whether the result includes a kernel."""

    def settings(self, **given: Any) -> Any:
        """Return the method's settings.

        Args:
            given: Settings by name.

        Raises:
            InputError: The method has no such setting, or a value is out of range.
        """
        kind = self._find(self.settings_class)
        known = {field.name for field in fields(kind)}
        unknown = sorted(given.keys() - known)
        if unknown:
            raise InputError(f"{self.name} has no {', '.join(unknown)}; leave it out")
        return kind(**given)

    def fit(self, lr: NDArray[np.uint8], scale: int, settings: Any) -> Fit:
        """Return a new fit to one LR image; step it with `ikc_deploy.offline.optimize.optimize`.

        Args:
            lr: RGB `[H,W,3]` uint8.
            scale: Scale factor.
            settings: What `settings` returned.

        Raises:
            InputError: The image, the scale or the device cannot be used.
            CheckpointError: The weights of the kernel flow are unusable.
        """
        return cast("Fit", self._find(self.fit_class)(lr, scale, settings))

    def _find(self, name: str) -> Any:
        """Import the method's module and return a class of it; other methods are not imported."""
        return getattr(importlib.import_module(f"ikc_deploy.offline.{self.module}"), name)


METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method("dip-fkp", "dip_fkp", "DipFkp", "DipFkpSettings", True),
        Method("kernelgan-fkp", "kernelgan_fkp", "KernelGanFkp", "KernelGanFkpSettings", True),
        Method("ike", "ike", "IkeFit", "IkeSettings", False),
    )
}
"""All methods by name: the values of `ikc-offline --method`."""
