"""USRNet: super-resolution under a known blur kernel of any family.

Zhang, Van Gool and Timofte (CVPR 2020) unfold half-quadratic splitting into alternating steps: a
closed-form *data step* makes the image agree with the LR image under the kernel, and a *prior*, a
small residual U-Net, makes it look natural. A *hyper network* determines the size of each step from
noise level and scale. One network serves all scales and kernels. The data step is in
`usrnet_data_step`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

import ikc_deploy.weights
from ikc_deploy.errors import CheckpointError, InputError
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.tensors import fill, read_tensors
from ikc_deploy.networks.usrnet_data_step import DataStep, Fft
from ikc_deploy.text import shown
from ikc_deploy.typed_values import SettingError, read_settings

FORMAT: Final = "ikc-deploy usrnet 1"

_LEVELS: Final = 4
_MAX_CHANNELS: Final = 1024
_MAX_BLOCKS: Final = 64
"""Upper limits: twice the channels and eight times the blocks of the largest published one."""
_FLOOR: Final = 1e-6
"""Smallest step size, added to the output of softplus (as in the published network)."""
_FIRST_ALPHAS: Final = (-3.0, -2.0)
_FIRST_BETAS: Final = (-0.3, -1.5)
"""Initial step sizes of the first and last iteration without noise, as powers of ten."""
_NOISE_GAIN: Final = 40.0
_ALPHA_GAIN: Final = 2.0
"""Initial gain of alpha with noise: 10 levels multiply alpha by 23."""
_QUIET: Final = 0.1
"""Initial factor of weights whose output would otherwise hide the image."""


@dataclass(frozen=True)
class UsrnetSettings:
    """The size of the network; the defaults are those of the published tiny one.

    Raises:
        CheckpointError: A setting is out of range.
    """

    iterations: int = 6
    """Number of data steps, and of prior steps, 1 to 64."""
    channels: tuple[int, ...] = (16, 32, 64, 64)
    """Numbers of channels of the prior at full, half, quarter and eighth resolution, 1 to 1024."""
    blocks: int = 2
    """Number of residual blocks of the prior at each resolution, down and up, 1 to 64."""
    hyper_channels: int = 32
    """Number of channels of the hyper network, 1 to 1024."""

    def __post_init__(self) -> None:
        """Require one number of channels for each level, and sizes in range."""
        if len(self.channels) != _LEVELS:
            raise CheckpointError(
                f"channels must be {_LEVELS} numbers, got {shown(list(self.channels))}"
            )
        named = {
            "iterations": self.iterations,
            "blocks": self.blocks,
            "hyper_channels": self.hyper_channels,
        }
        named |= {f"channels[{index}]": count for index, count in enumerate(self.channels)}
        for name, value in named.items():
            most = _MAX_CHANNELS if "channels" in name else _MAX_BLOCKS
            if not 1 <= value <= most:
                raise CheckpointError(
                    f"{name} must be a whole number from 1 to {most}, got {shown(value)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> UsrnetSettings:
        """Return the settings of plain values; the inverse of `to_dict`.

        Raises:
            CheckpointError: A name is unknown, or a value has the wrong type or range.
        """
        try:
            return read_settings(cls, values)
        except SettingError as error:
            raise CheckpointError(f"invalid settings of a USRNet: {error}") from None


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))).

    Args:
        channels: Number of input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` of the same shape as `x`."""
        return x + self.res(x)


class Prior(nn.Module):
    """A U-Net without biases: a cleaner image from an image and its assumed noise level.

    Args:
        settings: Sizes of the network.
    """

    def __init__(self, settings: UsrnetSettings) -> None:
        super().__init__()
        channels, first = settings.channels, settings.channels[0]

        def blocks(count: int) -> Iterable[nn.Module]:
            return (ResidualBlock(count) for _ in range(settings.blocks))

        steps = list(pairwise(channels))
        self.head = nn.Conv2d(4, first, 3, padding=1, bias=False)
        self.down = nn.ModuleList(
            nn.Sequential(*blocks(fine), nn.Conv2d(fine, coarse, 2, stride=2, bias=False))
            for fine, coarse in steps
        )
        self.body = nn.Sequential(*blocks(channels[-1]))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False), *blocks(fine))
            for fine, coarse in reversed(steps)
        )
        self.tail = nn.Conv2d(first, 3, 3, padding=1, bias=False)

    def forward(self, image: Tensor, beta: Tensor) -> Tensor:
        """Return `[N,3,H,W]` of an image `[N,3,H,W]` and `beta` `[N]`, in the weights' dtype."""
        height, width = image.shape[-2:]
        level = beta[:, None, None, None].expand(-1, 1, height, width)
        x = torch.cat((image, level), dim=1).to(self.head.weight.dtype)
        step = 2 ** len(self.down)
        below, beside = -height % step, -width % step
        if below or beside:
            x = F.pad(x, (0, beside, 0, below), mode="replicate")
        x = self.head(x)
        skipped = []
        for part in self.down:
            skipped.append(x)
            x = part(x)
        skipped.append(x)
        x = self.body(x)
        for part in self.up:
            x = part(x + skipped.pop())
        x = self.tail(x + skipped.pop())
        return x[..., :height, :width] if below or beside else x

    def initialize(self) -> None:
        """Initialise the weights (see `Usrnet.initialize`)."""
        for part in self.modules():
            if isinstance(part, ResidualBlock):
                cast(nn.Conv2d, part.res[-1]).weight.mul_(_QUIET)
            elif isinstance(part, nn.ConvTranspose2d):
                part.weight.mul_(_QUIET)
        for end in (self.head, self.tail):
            end.weight[:3].mul_(_QUIET)
            end.weight[:, :3].mul_(_QUIET)
            for channel in range(3):
                end.weight[channel, channel, 1, 1] += 1


class Hyper(nn.Module):
    """An MLP from noise level and scale to the step sizes alpha and beta of every iteration.

    Args:
        settings: Sizes of the network.
    """

    def __init__(self, settings: UsrnetSettings) -> None:
        super().__init__()
        width = settings.hyper_channels
        self.mlp = nn.Sequential(
            nn.Linear(2, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, 2 * settings.iterations),
            nn.Softplus(),
        )

    def forward(self, noise: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """Return alpha and beta, `[N,iterations]` each, from `noise` `[N]` and the scale."""
        found = self.mlp(torch.stack((noise, torch.full_like(noise, scale)), dim=1)) + _FLOOR
        alpha, beta = found.chunk(2, dim=1)
        return alpha, beta

    def initialize(self) -> None:
        """Initialise the weights (see `Usrnet.initialize`)."""
        first, middle, last = (cast(nn.Linear, self.mlp[index]) for index in (0, 2, 4))
        count = len(last.bias) // 2
        # One unit passes the noise level through, and alpha grows with it from the start: a data
        # step that trusts noisy pixels diverges.
        first.weight[0] = torch.tensor([_NOISE_GAIN, 0.0])
        middle.weight[0] = torch.eye(len(middle.weight))[0]
        first.bias[0] = middle.bias[0] = 0.0
        last.weight.mul_(_QUIET)
        last.weight[:count, 0] = _ALPHA_GAIN
        alphas = torch.logspace(*_FIRST_ALPHAS, count)
        betas = torch.logspace(*_FIRST_BETAS, count)
        # The inverse of softplus.
        last.bias.copy_(torch.cat((alphas, betas)).expm1().log())


class Usrnet(nn.Module):
    """The whole network: hyper network, data steps and prior.

    Args:
        settings: Sizes of the network; None for the published ones.
    """

    def __init__(self, settings: UsrnetSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or UsrnetSettings()
        self.hyper = Hyper(self.settings)
        self.prior = Prior(self.settings)
        self.fourier: nn.Module = Fft()
        self.training_record: dict[str, Any] = {}
        """Record of the training; empty for random weights."""

    @torch.no_grad()
    def initialize(self) -> None:
        """Initialise for fast training: plausible data steps, and a prior near the identity."""
        self.hyper.initialize()
        self.prior.initialize()

    def forward(
        self, lr: Tensor, kernel: Tensor, scale: int, noise: Tensor | float = 0.0
    ) -> Tensor:
        """Return the SR images of `lr`.

        Args:
            lr: LR images `[N,3,h,w]` in [0,1].
            kernel: Blur kernels `[N,k,k]` or `[1,k,k]`, odd k, sum 1, in the FKP convention.
            scale: SR factor.
            noise: Standard deviation of the noise in `lr` in units of [0,1], a number or `[N]`.

        Returns:
            SR images `[N,3,s*h,s*w]` float32, approximately in [0,1], not clamped. Differentiable
            in all inputs. The data steps are float32 even under autocast.

        Raises:
            InputError: `lr` or `kernel` has another shape.
        """
        _check(lr, kernel)
        with torch.autocast(lr.device.type, enabled=False):
            lr, kernel = lr.float(), kernel.float()
            levels = torch.as_tensor(noise, dtype=torch.float32, device=lr.device)
            alphas, betas = self.hyper(levels.expand(lr.shape[0]), scale)
            data = DataStep(self.fourier, lr, kernel, scale)
        x = F.interpolate(lr, scale_factor=scale, mode="nearest")
        for alpha, beta in zip(alphas.unbind(1), betas.unbind(1), strict=True):
            with torch.autocast(lr.device.type, enabled=False):
                x = data(x, alpha)
            x = self.prior(x, beta).float()
        return x


def shipped_usrnet() -> Path:
    """Return the path of the shipped weights."""
    return Path(ikc_deploy.weights.__file__).parent / "usrnet" / "usrnet-tiny.safetensors"


def load_usrnet(path: str | PathLike[str] | None = None) -> Usrnet:
    """Return the USRNet of a checkpoint.

    Args:
        path: A file by `save_usrnet`; None for the shipped weights.

    Returns:
        The network as float32, in evaluation mode, without gradients, on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged or not a USRNet checkpoint of this project.
    """
    source = Path(path) if path is not None else shipped_usrnet()
    tensors, metadata = read_tensors(source, FORMAT)
    try:
        settings = UsrnetSettings.from_dict(json.loads(metadata["settings"]))
        record: dict[str, Any] = dict(json.loads(metadata["training"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"'{source}' is incomplete or was altered: {error}") from error
    network = Usrnet(settings)
    network.training_record = record
    fill({"": network}, tensors, f"'{source}' does not hold the USRNet of its metadata")
    return network.eval().requires_grad_(False)


def save_usrnet(
    network: Usrnet, path: str | PathLike[str], dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint atomically.

    Args:
        network: Network on any device; it stays unchanged.
        path: File to write; an existing one is replaced.
        dtype: Type of the stored weights; float16 halves the size.
    """
    tensors = {
        key: value.detach().cpu().to(dtype).contiguous()
        for key, value in network.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "settings": json.dumps(network.settings.to_dict()),
        "training": json.dumps(network.training_record),
    }
    write_atomically(path, save(tensors, metadata))


def _check(lr: Tensor, kernel: Tensor) -> None:
    if lr.ndim != 4 or lr.shape[1] != 3:
        raise InputError(f"LR images must be [N,3,h,w], got {list(lr.shape)}")
    side = kernel.shape[-1]
    square = kernel.ndim == 3 and kernel.shape[1] == side and side % 2 == 1
    if not square or kernel.shape[0] not in (1, lr.shape[0]):
        raise InputError(
            f"kernels must be [N,k,k] with odd k, one for each of {lr.shape[0]} images, "
            f"got {list(kernel.shape)}"
        )
