"""A blur kernel as a point in the flow's latent space, which both FKP methods optimise.

The point is kept on a sphere, where nearly all of a Gaussian's mass lies, so that the kernel stays
among those that the flow has learnt (FKP, CVPR 2021, section 3.3). The radius is k - 1, as in the
paper's code; its theory gives k.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.networks.flow import KernelFlow


class KernelCode:
    """The latent code of one blur kernel, initialised at random, and its Adam optimizer.

    Args:
        flow: Flow that decodes it; it is moved to `device` and frozen.
        generator: Random generator for the initial code.
        rate: Learning rate.
        device: Name of torch's device.
        betas: Decay rates of Adam.
    """

    def __init__(
        self,
        flow: KernelFlow,
        generator: torch.Generator,
        rate: float,
        device: str,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self._flow = flow.to(device).eval().requires_grad_(False)
        self._radius = float(flow.size - 1)
        start = torch.randn(1, flow.size**2, generator=generator)
        self._code = nn.Parameter(self._on_sphere(start).to(device))
        self._optimizer = torch.optim.Adam([self._code], lr=rate, betas=betas)

    def kernel(self) -> Tensor:
        """Return the kernel `[k,k]`, sum 1, in the FKP convention; differentiable in the code."""
        return self._flow.decode(self._code)[0]

    def array(self) -> NDArray[np.float64]:
        """Return the kernel `[k,k]` as a numpy array."""
        with torch.no_grad():
            return self.kernel().cpu().numpy().astype(np.float64)

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self._optimizer.zero_grad()

    def step(self) -> None:
        """Take a step of the optimizer and project the code back onto the sphere."""
        self._optimizer.step()
        with torch.no_grad():
            self._code.copy_(self._on_sphere(self._code))

    def state(self) -> dict[str, Any]:
        """Return the code and the state of the optimizer."""
        return {"code": self._code.detach(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state`."""
        with torch.no_grad():
            self._code.copy_(state["code"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _on_sphere(self, code: Tensor) -> Tensor:
        return code * (self._radius / code.norm())


def weights_digest(network: nn.Module) -> str:
    """Return the SHA-256 (hex) of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
