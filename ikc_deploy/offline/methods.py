"""The offline methods by name, each a module with settings, a `Fit` and `fit`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol, cast

from ikc_deploy.errors import InputError
from ikc_deploy.offline.optimize import FitResult


class MethodModule(Protocol):
    """What a method's module offers."""

    def fit(
        self, lr: Any, scale: int, settings: Any, progress: Any, *, stop: Any, state: Any
    ) -> FitResult:
        """Fit RGB `[H,W,3]` uint8: see `ikc_deploy.offline.optimize.optimize`."""
        ...


@dataclass(frozen=True)
class Method:
    """One way to find a picture, and perhaps its blur."""

    name: str
    module: str
    settings_class: str
    """A frozen, validated dataclass of the module; `iterations`, `seed` and `device` are among
    its fields."""
    finds_kernel: bool
    """Gives the kernel as well as the picture."""

    def load(self) -> MethodModule:
        """The module, imported now: other methods need not be."""
        found = importlib.import_module(f"ikc_deploy.offline.{self.module}")
        return cast(MethodModule, found)

    def settings(self, **given: Any) -> Any:
        """The method's settings; None means its default.

        Raises `InputError` for one that the method does not have, and for impossible values.
        """
        kind = getattr(self.load(), self.settings_class)
        known = {field.name for field in fields(kind)}
        chosen = {name: value for name, value in given.items() if value is not None}
        unknown = sorted(chosen.keys() - known)
        if unknown:
            raise InputError(f"{self.name} has no {', '.join(unknown)}; leave it out")
        return kind(**chosen)


METHODS: Final = {
    method.name: method
    for method in (
        Method("dip-fkp", "dip_fkp", "DipFkpSettings", True),
        Method("kernelgan-fkp", "kernelgan_fkp", "KernelGanFkpSettings", True),
        Method("ike", "ike", "IkeSettings", False),
    )
}
"""All methods; what `ikc-offline --method` takes."""
