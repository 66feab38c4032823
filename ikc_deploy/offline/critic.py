"""The critic of KernelGAN-FKP: scores how much patches resemble those of the LR image (WGAN-GP)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_LAYERS: Final = 5
_SLOPE: Final = 0.2
_INITIAL_DEVIATION: Final = 0.02


class Critic(nn.Module):
    """A critic: maps patches `[N,3,h,w]` in [0,1] to scores `[N,1,h-10,w-10]`.

    Five 3x3 convolutions.

    Args:
        channels: Number of channels between the convolutions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (3, *[channels] * (_LAYERS - 2)):
            layers += [
                nn.Conv2d(inputs, channels, 3),
                nn.BatchNorm2d(channels, track_running_stats=False),
                nn.LeakyReLU(_SLOPE),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, _INITIAL_DEVIATION)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the scores of patches; see the class."""
        scores: Tensor = self.layers(2 * patches - 1)
        return scores


def gradient_penalty(
    critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the gradient penalty of WGAN-GP, a differentiable scalar.

    It is the mean of (|gradient| - 1)^2 at random points between real and fake patches. The
    gradient is that of the sum of the scores. Its norm is taken over the channels of each pixel,
    because a score depends only on the pixels near it.

    Args:
        critic: Critic whose gradient is taken.
        real: Patches of the LR image, `[N,3,h,w]` in [0,1].
        fake: Downscaled patches of the same shape.
        generator: Source of the random points.
    """
    share = torch.rand(len(real), 1, 1, 1, generator=generator).to(real.device)
    interpolated = (share * real + (1 - share) * fake).requires_grad_()
    (gradients,) = torch.autograd.grad(critic(interpolated).sum(), interpolated, create_graph=True)
    penalty: Tensor = ((gradients.norm(dim=1) - 1) ** 2).mean()
    return penalty
