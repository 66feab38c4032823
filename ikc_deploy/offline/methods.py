"""The offline methods by name, each a module with `Settings`, a `Fit` and `fit`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from typing import Any, Final, Protocol, cast

from ikc_deploy.errors import InputError
from ikc_deploy.offline.fitting import Result


class MethodModule(Protocol):
    """What a method's module offers."""

    Settings: Any
    """A frozen, validated dataclass; `iterations`, `seed` and `device` are among its fields."""

    def fit(
        self, lr: Any, scale: int, settings: Any, progress: Any, *, stop: Any, state: Any
    ) -> Result:
        """Fit RGB `[H,W,3]` uint8: see `ikc_deploy.offline.fitting.complete`."""
        ...


@dataclass(frozen=True)
class Method:
    """One way to find a picture, and perhaps its blur."""

    name: str
    module: str
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
        kind = self.load().Settings
        known = {field.name for field in fields(kind)}
        chosen = {name: value for name, value in given.items() if value is not None}
        unknown = sorted(chosen.keys() - known)
        if unknown:
            raise InputError(f"{self.name} has no {', '.join(unknown)}; leave it out")
        return kind(**chosen)


METHODS: Final = {
    method.name: method
    for method in (
        Method("dip-fkp", "dip_fkp", True),
        Method("kernelgan-fkp", "kernelgan_fkp", True),
        Method("ike", "ike", False),
    )
}
"""All methods; what `ikc-offline --method` takes."""
