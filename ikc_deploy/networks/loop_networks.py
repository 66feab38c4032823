"""The networks of a loop with their kernel basis: the content of a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Self

from torch import nn

from ikc_deploy.kernels import KernelBasis
from ikc_deploy.loops import Loop
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.corrector import Corrector
from ikc_deploy.networks.dan import Dan1Estimator, Dan1Restorer, Dan2Estimator, Dan2Restorer
from ikc_deploy.networks.predictor import Predictor
from ikc_deploy.networks.sr_network import SrNetwork


@dataclass(eq=False)
class LoopNetworks(ABC):
    """The networks of any loop, with the basis of their kernel codes."""

    architecture: Architecture
    """Settings that determine the shapes of the networks."""
    basis: KernelBasis
    """Kernel basis in which the codes are expressed."""
    training: dict[str, Any] = field(default_factory=dict, kw_only=True)
    """Record of the training: recipe, data, steps, figures. Empty for random weights."""

    @property
    def loop(self) -> Loop:
        """Loop in which the networks run."""
        return self.architecture.loop

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Return the networks by the names of their graphs."""

    def freeze(self) -> Self:
        """Switch all networks to evaluation mode without gradients, in place, and return self."""
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        return self


@dataclass(eq=False)
class IkcNetworks(LoopNetworks):
    """F, P and C of IKC."""

    sftmd: SrNetwork
    """SR network F, of any design."""
    predictor: Predictor
    """Predictor P."""
    corrector: Corrector
    """Corrector C."""

    def modules(self) -> dict[str, nn.Module]:
        """Return the three networks by the names of their graphs."""
        return {"sftmd": self.sftmd, "predictor": self.predictor, "corrector": self.corrector}


@dataclass(eq=False)
class DanNetworks(LoopNetworks):
    """Restorer and Estimator of DAN, of either version."""

    restorer: Dan1Restorer | Dan2Restorer
    """Restorer: images from LR images and codes."""
    estimator: Dan1Estimator | Dan2Estimator
    """Estimator: codes from SR and LR images."""

    def modules(self) -> dict[str, nn.Module]:
        """Return the two networks by the names of their graphs."""
        return {"restorer": self.restorer, "estimator": self.estimator}
