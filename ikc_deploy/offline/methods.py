"""The offline methods by name; each is a module with settings, a `Fit` and `fit`.

Torch is imported with the module of a method, not with this list.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

from ikc_deploy.errors import InputError

if TYPE_CHECKING:
    from ikc_deploy.offline.optimize import FitResult

MethodName = Literal["dip-fkp", "kernelgan-fkp", "ike"]
"""Name of an offline method."""


class MethodModule(Protocol):
    """The interface of a method's module."""

    def fit(
        self, lr: Any, scale: int, settings: Any, progress: Any, *, stop: Any, state: Any
    ) -> FitResult:
        """Fit RGB `[H,W,3]` uint8; see `ikc_deploy.offline.optimize.optimize`."""
        ...


@dataclass(frozen=True)
class Method:
    """An offline method: finds the SR image and, for some methods, the blur kernel."""

    name: MethodName
    """Name as in `ikc-offline --method`."""
    module: str
    """Name of the module in this package."""
    settings_class: str
    """Name of the frozen, validated dataclass of the settings; `iterations`, `seed` and `device`
    are among its fields."""
    finds_kernel: bool
    """Whether the result includes a kernel."""

    def load(self) -> MethodModule:
        """Import the method's module and return it; other methods are not imported."""
        found = importlib.import_module(f"ikc_deploy.offline.{self.module}")
        return cast(MethodModule, found)

    def settings(self, **given: Any) -> Any:
        """Return the method's settings.

        Args:
            given: Settings by name.

        Raises:
            InputError: The method has no such setting, or a value is out of range.
        """
        kind = getattr(self.load(), self.settings_class)
        known = {field.name for field in fields(kind)}
        unknown = sorted(given.keys() - known)
        if unknown:
            raise InputError(f"{self.name} has no {', '.join(unknown)}; leave it out")
        return kind(**given)


METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method("dip-fkp", "dip_fkp", "DipFkpSettings", True),
        Method("kernelgan-fkp", "kernelgan_fkp", "KernelGanFkpSettings", True),
        Method("ike", "ike", "IkeSettings", False),
    )
}
"""All methods by name: the values of `ikc-offline --method`."""
