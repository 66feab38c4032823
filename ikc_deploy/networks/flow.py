"""FKP's kernel prior: an invertible network between blur kernels and a normal distribution.

The flow of "Flow-based Kernel Prior" (CVPR 2021): five blocks of an affine coupling and a batch
norm on the flattened kernel, one network for each scale. A kernel x becomes logits, the flow maps
these to z, and z is standard normal if x is distributed like the training kernels. Methods that
search for a kernel search for z instead, and so find only plausible kernels.

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
"""Number of couplings, each with its batch norm."""

PEAKS: Final[dict[int, float]] = {2: 0.2335, 3: 0.31311, 4: 0.16908}
"""Divisor of a kernel's weights by scale: the peak of the narrowest kernel + 0.01."""

ALPHA: Final = 1e-6
"""Smallest distance of a weight from 0 and 1 before its logit."""

NOISE_LEVELS: Final = 720.0
"""Number of levels between 0 and a kernel's peak that noise makes continuous (reference code)."""

_MOMENTUM: Final = 0.9
_EPSILON: Final = 1e-5


class KernelFlow(nn.Module):
    """The invertible map between kernels `[N,k,k]` and z `[N,k*k]`.

    float32 as loaded; float64 after `.double()`.

    Args:
        scale: Scale factor of the kernels; it determines their size.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.size = fkp_size(scale)
        """Side k of a kernel in pixels."""
        hidden = min(5 * scale + 5, 25)
        self.blocks = nn.ModuleList(_FlowBlock(self.size**2, hidden, i) for i in range(BLOCKS))
        self.clear_unused()

    def forward(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Return z `[N,k*k]` of kernels `[N,k,k]`, and log|det dz/dkernel| `[N]`.

        Weights are clipped to [0, `PEAKS`], which changes kernels of the family only by traces.
        In training mode z depends on the whole batch, and the determinant treats the batch's
        statistics as constants.
        """
        inside = kernel.flatten(1).clamp(0, PEAKS[self.scale])
        scaled = ALPHA + (1 - 2 * ALPHA) * inside / PEAKS[self.scale]
        z, log_determinant = self.encode(torch.logit(scaled))
        slope = (1 - 2 * ALPHA) / PEAKS[self.scale]
        # d logit(p) / dp = 1 / (p (1 - p))
        bends = math.log(slope) - torch.log(scaled) - torch.log1p(-scaled)
        return z, log_determinant + bends.sum(dim=1)

    def logits(self, kernel: Tensor, noise: Tensor) -> Tensor:
        """Return the input of the flow in training: logits `[N,k*k]` of noisy kernels.

        `kernel` `[N,k,k]` is clipped at 0; `noise` `[N,k,k]`, uniform in [0, 1), is scaled by
        1 / `NOISE_LEVELS` and added. Without noise, weights that are exactly 0 have an unbounded
        likelihood.
        """
        scaled = kernel.clamp(min=0) / PEAKS[self.scale] + noise / NOISE_LEVELS
        return torch.logit(ALPHA + (1 - 2 * ALPHA) * scaled.flatten(1))

    def encode(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return z `[N,k*k]` of logits `[N,k*k]`, and log|det dz/dlogits| `[N]`: the flow alone."""
        z, log_determinant = logits, logits.new_zeros(len(logits))
        for block in self.blocks:
            z, change = block(z)
            log_determinant = log_determinant + change
        return z, log_determinant

    def negative_log_likelihood(self, logits: Tensor) -> Tensor:
        """Return -log p `[N]` of logits `[N,k*k]`, in nats: the loss of FKP."""
        z, log_determinant = self.encode(logits)
        log_normal = -0.5 * (z * z + math.log(2 * math.pi)).sum(dim=1)
        return -(log_normal + log_determinant)

    def raw(self, z: Tensor) -> Tensor:
        """Return kernels `[N,k,k]` of z `[N,k*k]`: the inverse of `forward`; sums are near 1."""
        for block in reversed(self.blocks):
            z = cast(_FlowBlock, block).inverse(z)
        scaled = (torch.sigmoid(z) - ALPHA) / (1 - 2 * ALPHA)
        return (scaled * PEAKS[self.scale]).view(-1, self.size, self.size)

    def decode(self, z: Tensor) -> Tensor:
        """Return kernels `[N,k,k]`, sum 1, of z `[N,k*k]`; differentiable.

        The reference does not normalise the sum of `raw`, so it changes the brightness of images.
        """
        kernel = self.raw(z)
        return kernel / kernel.sum(dim=(1, 2), keepdim=True)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return kernels `[count,k,k]`, sum 1, drawn from the prior.

        Args:
            count: Number of kernels.
            generator: CPU generator; None for the global one.
        """
        like = next(self.parameters())
        z = torch.randn(count, self.size**2, generator=generator, dtype=like.dtype)
        return self.decode(z.to(like.device))

    def settle(self, logits: Tensor) -> None:
        """Set every norm's statistics to those of one large batch of logits `[N,k*k]`.

        In training they are a moving average over about ten batches, whose noise reduces the
        likelihood.
        """
        with torch.no_grad():
            for block in self.blocks:
                coupled, _ = cast(_FlowBlock, block).coupling(logits)
                logits = cast(_FlowBlock, block).norm.settle(coupled)

    def clear_unused(self) -> None:
        """Set the weights that masks switch off to zero; every new flow does this.

        They have no effect, but weight decay would turn them into denormal numbers, which are many
        times slower on a CPU; zeros stay zeros.
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
    """An affine coupling: every second pixel stays and determines shift and scale of the others."""

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
    """A batch norm with its determinant; an affine map in evaluation mode and in its inverse."""

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
    """Return the path of the shipped weights for `scale`."""
    return Path(ikc_deploy.weights.__file__).parent / "fkp" / flow_file(scale)


def flow_file(scale: int) -> str:
    """Return the file name of the flow for `scale`."""
    return f"fkp-x{scale}.safetensors"


def load_flow(scale: int, path: Path | None = None) -> KernelFlow:
    """Return the kernel prior for a scale.

    Args:
        scale: SR factor: 2, 3 or 4.
        path: A file by `save_flow` (`ikc-train`, `ikc-import --fkp`); None for the shipped weights.

    Returns:
        The flow as float32, in evaluation mode, without gradients, on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged or made for another scale.
    """
    flow = KernelFlow(scale)
    file = path or shipped_flow(scale)
    tensors, metadata = read_tensors(file, FORMAT)
    if metadata.get("scale") != str(scale):
        raise CheckpointError(
            f"'{file}' is a kernel flow for x{metadata.get('scale')}, but x{scale} is needed"
        )
    fill({"": flow}, tensors, f"'{file}' is not a kernel flow for x{scale}")
    return flow.eval().requires_grad_(False)


def save_flow(
    flow: KernelFlow, path: str | PathLike[str], training: Mapping[str, Any] | None = None
) -> None:
    """Write a flow atomically.

    Args:
        flow: Flow on any device.
        path: File to write; an existing one is replaced.
        training: Record of the training, of JSON values.
    """
    tensors = {key: value.detach().cpu().float() for key, value in flow.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "scale": str(flow.scale),
        "training": json.dumps(training or {}),
    }
    write_atomically(path, save(tensors, metadata))
