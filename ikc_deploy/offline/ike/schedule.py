"""How weights and the learning rate change while a fit goes on."""

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
"""The rate falls tenfold at every quarter of a fit: every 750 of the paper's 3000 iterations."""

_MET: Final = 1e-4
"""Mean squared distance from the bicubic small image that counts as met: 40 dB."""
_PATIENCE: Final = 0.1
"""Share of a fit after which bicubic shrinking counts as met in any case."""
_DECAY: Final = 0.95
"""Of the bicubic weight, in every iteration from then on."""
_NOTHING: Final = 1e-3
"""A bicubic weight below this is none."""


@dataclass
class Schedule:
    """First the network learns to shrink bicubically; then it is let go, and kept to the picture's
    brightness instead."""

    iterations: int
    done: int = 0
    met: bool = False
    bicubic: float = BICUBIC
    """The present weight of L_bic."""

    @property
    def learning_rate(self) -> float:
        """Of the iteration to come."""
        return LEARNING_RATE * _DROP ** (_DROPS * self.done // self.iterations)

    @property
    def energy(self) -> float:
        """The weight of L_energy: none while bicubic shrinking is being learnt."""
        return ENERGY if self.met else 0.0

    def advance(self, bicubic_loss: float) -> None:
        """An iteration is done, in which L_bic was this much."""
        self.done += 1
        if bicubic_loss < _MET or self.done >= _PATIENCE * self.iterations:
            self.met = True
        if self.met:
            self.bicubic *= _DECAY
        if self.bicubic < _NOTHING:
            self.bicubic = 0.0

    def state(self) -> dict[str, Any]:
        """What changes."""
        return {"done": self.done, "met": self.met, "bicubic": self.bicubic}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a `state`."""
        self.done, self.met, self.bicubic = state["done"], state["met"], state["bicubic"]
