"""The schedule of loss weights and learning rate during a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

BICUBIC: Final = 5.0
ENERGY: Final = 4.0
CSR_BACKWARD: Final = 2.0
INTERPOLATION: Final = 5.0
TOTAL_VARIATION: Final = 1.0
"""Weights of the losses (the paper's); that of the forward patch GAN is 1."""

LEARNING_RATE: Final = 2e-4
_DROP: Final = 0.1
_DROPS: Final = 4
"""Number of equal parts of a fit, each with a tenth of the learning rate of the one before: 750 of
the paper's 3000 iterations each."""

_LEARNT: Final = 1e-4
"""Mean squared distance from the bicubic small image at which it counts as learnt: 40 dB."""
_LATEST: Final = 0.1
"""Share of a fit after which bicubic downscaling counts as learnt in any case."""
_DECAY: Final = 0.95
"""Factor of the bicubic weight in every later iteration."""
_NEGLIGIBLE: Final = 1e-3
"""Bicubic weight below which it is set to zero."""


@dataclass
class Schedule:
    """The schedule of a fit: L_bic applies until bicubic downscaling is learnt, then L_energy."""

    iterations: int
    """Number of iterations of the fit."""
    done: int = 0
    """Number of iterations done."""
    met: bool = False
    """Whether bicubic downscaling has been learnt."""
    bicubic: float = BICUBIC
    """Current weight of L_bic."""

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next iteration."""
        return LEARNING_RATE * _DROP ** (_DROPS * self.done // self.iterations)

    @property
    def energy(self) -> float:
        """Weight of L_energy: zero while bicubic downscaling is being learnt."""
        return ENERGY if self.met else 0.0

    def advance(self, bicubic_loss: float) -> None:
        """Advance by one iteration, given its L_bic."""
        self.done += 1
        if bicubic_loss < _LEARNT or self.done >= _LATEST * self.iterations:
            self.met = True
        if self.met:
            self.bicubic *= _DECAY
        if self.bicubic < _NEGLIGIBLE:
            self.bicubic = 0.0

    def state(self) -> dict[str, Any]:
        """Return the values that change during a fit."""
        return {"done": self.done, "met": self.met, "bicubic": self.bicubic}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state`."""
        self.done, self.met, self.bicubic = state["done"], state["met"], state["bicubic"]
