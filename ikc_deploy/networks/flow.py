"""FKP's kernel prior: an invertible network between blur kernels and a normal distribution.

The flow of "Flow-based Kernel Prior" (CVPR 2021): five blocks of an affine coupling and a batch
norm on the flattened kernel, one network for each scale. A kernel x becomes logits, the flow maps
these to z, and z is standard normal if x is a kernel such as the network was trained on. Methods
that look for a kernel look for z instead, and find only kernels that make sense.

Kernels are in the FKP convention (`ikc_deploy.kernels`), `[N,k,k]` with k = `KernelFlow.size`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

import ikc_deploy.weights
from ikc_deploy.errors import CheckpointError
from ikc_deploy.files import write_atomically
from ikc_deploy.kernels import fkp_size
from ikc_deploy.networks.tensors import fill, read_tensors

FORMAT: Final = "ikc-deploy kernel flow 1"
BLOCKS: Final = 5
"""Couplings, each with its batch norm."""

PEAKS: Final[dict[int, float]] = {2: 0.2335, 3: 0.31311, 4: 0.16908}
"""What a kernel's weights are divided by for each scale: the peak of the narrowest one + 0.01."""

ALPHA: Final = 1e-6
"""How far from 0 and 1 a weight is kept before its logit."""

NOISE_LEVELS: Final = 720.0
"""Levels between 0 and a kernel's peak that noise makes continuous (the reference's code)."""

_MOMENTUM: Final = 0.9
_EPSILON: Final = 1e-5


class KernelFlow(nn.Module):
    """Kernels `[N,k,k]` to z `[N,k*k]` and back. float32 as loaded; float64 after `.double()`."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.size = fkp_size(scale)
        """Side k of a kernel in pixels."""
        hidden = min(5 * scale + 5, 25)
        self.blocks = nn.ModuleList(_FlowBlock(self.size**2, hidden, i) for i in range(BLOCKS))
        self.clear_unused()

    def forward(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """z `[N,k*k]` of kernels `[N,k,k]`, and log|det dz/dkernel| `[N]`.

        Weights are clipped to [0, `PEAKS`], which every kernel of the family keeps but for traces.
        In training mode z depends on the whole batch, and the determinant takes the batch's
        statistics for constants.
        """
        inside = kernel.flatten(1).clamp(0, PEAKS[self.scale])
        scaled = ALPHA + (1 - 2 * ALPHA) * inside / PEAKS[self.scale]
        z, log_determinant = self.encode(torch.logit(scaled))
        slope = (1 - 2 * ALPHA) / PEAKS[self.scale]
        # d logit(p) / dp = 1 / (p (1 - p))
        bends = math.log(slope) - torch.log(scaled) - torch.log1p(-scaled)
        return z, log_determinant + bends.sum(dim=1)

    def logits(self, kernel: Tensor, noise: Tensor) -> Tensor:
        """What the flow was trained on: logits `[N,k*k]` of noisy kernels.

        `kernel` `[N,k,k]` is clipped at 0; `noise` `[N,k,k]`, uniform in [0, 1), is added with a
        height of 1 / `NOISE_LEVELS`. Without noise, weights that are exactly 0 have a likelihood
        without bound.
        """
        scaled = kernel.clamp(min=0) / PEAKS[self.scale] + noise / NOISE_LEVELS
        return torch.logit(ALPHA + (1 - 2 * ALPHA) * scaled.flatten(1))

    def encode(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """z `[N,k*k]` of logits `[N,k*k]`, and log|det dz/dlogits| `[N]`: the flow alone."""
        z, log_determinant = logits, logits.new_zeros(len(logits))
        for block in self.blocks:
            z, change = block(z)
            log_determinant = log_determinant + change
        return z, log_determinant

    def negative_log_likelihood(self, logits: Tensor) -> Tensor:
        """-log p `[N]` of logits `[N,k*k]`, in nats: the figure that FKP trains on and reports."""
        z, log_determinant = self.encode(logits)
        log_normal = -0.5 * (z * z + math.log(2 * math.pi)).sum(dim=1)
        return -(log_normal + log_determinant)

    def raw(self, z: Tensor) -> Tensor:
        """The exact inverse of `forward`: `[N,k,k]` of z `[N,k*k]`; sums are near 1, not 1."""
        for block in reversed(self.blocks):
            z = cast(_FlowBlock, block).inverse(z)
        scaled = (torch.sigmoid(z) - ALPHA) / (1 - 2 * ALPHA)
        return (scaled * PEAKS[self.scale]).view(-1, self.size, self.size)

    def decode(self, z: Tensor) -> Tensor:
        """Kernels `[N,k,k]`, sum 1, of z `[N,k*k]`; differentiable.

        The reference leaves the sum of `raw` as it is, and with it the brightness of the image.
        """
        kernel = self.raw(z)
        return kernel / kernel.sum(dim=(1, 2), keepdim=True)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Kernels `[count,k,k]`, sum 1, drawn from the prior."""
        like = next(self.parameters())
        z = torch.randn(count, self.size**2, generator=generator, dtype=like.dtype)
        return self.decode(z.to(like.device))

    def settle(self, logits: Tensor) -> None:
        """Set every norm's statistics to those of one large batch of logits `[N,k*k]`.

        While training they are a moving average over about ten batches, and the noise of that costs
        likelihood.
        """
        with torch.no_grad():
            for block in self.blocks:
                coupled, _ = cast(_FlowBlock, block).coupling(logits)
                logits = cast(_FlowBlock, block).norm.settle(coupled)

    def clear_unused(self) -> None:
        """Zero the weights that masks switch off; done to every new flow.

        They change nothing, but weight decay would drive them through denormal numbers, which slow
        a CPU down many times; zeros stay zeros.
        """
        for block in self.blocks:
            cast(_FlowBlock, block).coupling.clear_unused()


class _FlowBlock(nn.Module):
    def __init__(self, pixels: int, hidden: int, index: int) -> None:
        super().__init__()
        self.coupling = _FlowCoupling(pixels, hidden, index)
        self.norm = _Norm(pixels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, coupled = self.coupling(x)
        x, normed = self.norm(x)
        return x, coupled + normed

    def inverse(self, z: Tensor) -> Tensor:
        return self.coupling.inverse(self.norm.inverse(z))


class _FlowCoupling(nn.Module):
    """Every second pixel stays, and says how the others are shifted and scaled."""

    def __init__(self, pixels: int, hidden: int, index: int) -> None:
        super().__init__()
        kept = ((torch.arange(pixels) + index) % 2).float()
        self.register_buffer("kept", kept, persistent=False)
        self.log_scale = _layers(pixels, hidden, nn.Tanh)
        self.shift = _layers(pixels, hidden, nn.ReLU)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = self._split(x)
        log_scale = self.log_scale(kept) * self._moving
        shifted = (moved - self.shift(kept) * self._moving) * torch.exp(-log_scale)
        return kept + shifted, -log_scale.sum(dim=1)

    def inverse(self, z: Tensor) -> Tensor:
        kept, moved = self._split(z)
        restored = moved * torch.exp(self.log_scale(kept)) + self.shift(kept)
        return kept + restored * self._moving

    def clear_unused(self) -> None:
        kept = cast(Tensor, self.kept)
        with torch.no_grad():
            for layers in (self.log_scale, self.shift):
                first, last = cast(nn.Linear, layers[0]), cast(nn.Linear, layers[-1])
                first.weight.mul_(kept)
                last.weight.mul_(self._moving[:, None])
                last.bias.mul_(self._moving)

    @property
    def _moving(self) -> Tensor:
        return 1 - cast(Tensor, self.kept)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * cast(Tensor, self.kept), x * self._moving


class _Norm(nn.Module):
    """A batch norm with its determinant. In evaluation mode, and backwards: an affine map."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.log_gamma = nn.Parameter(torch.zeros(pixels))
        self.beta = nn.Parameter(torch.zeros(pixels))
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("variance", torch.ones(pixels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self._statistics(x)
        log_determinant = (self.log_gamma - 0.5 * torch.log(variance + _EPSILON)).sum()
        return self._normed(x, mean, variance), log_determinant

    def inverse(self, z: Tensor) -> Tensor:
        mean, variance = cast(Tensor, self.mean), cast(Tensor, self.variance)
        normed = (z - self.beta) * torch.exp(-self.log_gamma)
        return normed * torch.sqrt(variance + _EPSILON) + mean

    def settle(self, x: Tensor) -> Tensor:
        mean, variance = x.mean(dim=0), x.var(dim=0)
        cast(Tensor, self.mean).copy_(mean)
        cast(Tensor, self.variance).copy_(variance)
        return self._normed(x, mean, variance)

    def _normed(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        normed = (x - mean) / torch.sqrt(variance + _EPSILON)
        return torch.exp(self.log_gamma) * normed + self.beta

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        running = (cast(Tensor, self.mean), cast(Tensor, self.variance))
        if not self.training:
            return running
        batch = (x.mean(dim=0), x.var(dim=0))
        with torch.no_grad():
            for average, value in zip(running, batch, strict=True):
                average.lerp_(value, 1 - _MOMENTUM)
        return batch


def _layers(pixels: int, hidden: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(pixels, hidden),
        activation(),
        nn.Linear(hidden, hidden),
        activation(),
        nn.Linear(hidden, pixels),
    )


def shipped_flow(scale: int) -> Path:
    """Where the package has its own weights for `scale`."""
    return Path(ikc_deploy.weights.__file__).parent / "fkp" / flow_file(scale)


def flow_file(scale: int) -> str:
    """The name of a file that holds the flow for `scale`."""
    return f"fkp-x{scale}.safetensors"


def load_flow(scale: int, path: Path | None = None) -> KernelFlow:
    """The prior for `scale` 2, 3 or 4, in evaluation mode, without gradients, on the CPU.

    `path` is a file by `save_flow` (`ikc-train`, `ikc-import --fkp`); None takes the shipped
    weights. Raises `CheckpointError` if the file is missing, damaged, or made for another scale.
    """
    flow = KernelFlow(scale)
    file = path or shipped_flow(scale)
    tensors, metadata = read_tensors(file, FORMAT)
    if metadata.get("scale") != str(scale):
        raise CheckpointError(
            f"'{file}' is a kernel flow for x{metadata.get('scale')}, and x{scale} is asked for"
        )
    fill({"": flow}, tensors, f"'{file}' is no kernel flow for x{scale}")
    return flow.eval().requires_grad_(False)


def save_flow(
    flow: KernelFlow, path: str | PathLike[str], training: Mapping[str, Any] | None = None
) -> None:
    """Write a flow atomically, with the record of how its weights came to be."""
    tensors = {key: value.detach().cpu().float() for key, value in flow.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "scale": str(flow.scale),
        "training": json.dumps(training or {}),
    }
    write_atomically(path, save(tensors, metadata))
