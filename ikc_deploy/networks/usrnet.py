"""USRNet: super-resolution under a kernel that is known, whatever its family.

Zhang, Van Gool and Timofte (CVPR 2020) unfold half-quadratic splitting: a few times in turn, a
closed-form *data step* makes the image agree with the LR image under the kernel, and a *prior*, a
small residual U-Net, makes it look like an image. A *hyper network* says, from noise level and
scale, how far each step may go. One network serves all scales and kernels.

The degradation is that of the FKP convention: lr = A x, A being circular blur and s-fold sampling.
The data step minimises |A x' - lr|^2 + alpha |x' - x|^2. With the identity of Woodbury,

    x' = x + A^T (A A^T + alpha)^-1 (lr - A x),

and A A^T is a circular convolution of LR images. So the paper's Fourier transforms of SR images
become those of the s^2 phases of x, each of LR size, and nothing is divided by a small alpha.
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
from ikc_deploy.toml_settings import SettingError, read_settings, shown

FORMAT: Final = "ikc-deploy usrnet 1"

Spectrum = tuple[Tensor, Tensor]
"""Real and imaginary part of the half-plane transform of real planes: `[..., h, w // 2 + 1]`."""

_LEVELS: Final = 4
_MAX_CHANNELS: Final = 1024
_MAX_BLOCKS: Final = 64
"""Twice and eight times those of the largest published network."""
_FLOOR: Final = 1e-6
"""Least step size, beyond what softplus gives (the published network's)."""
_FIRST_ALPHAS: Final = (-3.0, -2.0)
_FIRST_BETAS: Final = (-0.3, -1.5)
"""Where training starts, first and last iteration, in powers of ten, without noise."""
_NOISE_GAIN: Final = 40.0
_ALPHA_GAIN: Final = 2.0
"""A noise of 10 levels multiplies alpha by 23 at the start."""
_QUIET: Final = 0.1
"""What is left of the weights that would drown the image at the start."""


@dataclass(frozen=True)
class UsrnetSettings:
    """The size of the network; the defaults are those of the published tiny one."""

    iterations: int = 6
    """Data and prior steps."""
    channels: tuple[int, ...] = (16, 32, 64, 64)
    """Of the prior, at full, half, quarter and eighth resolution."""
    blocks: int = 2
    """Residual blocks of the prior at each resolution, on the way down and again up."""
    hyper_channels: int = 32

    def __post_init__(self) -> None:
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
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> UsrnetSettings:
        """The inverse of `to_dict`. Raises `CheckpointError` for wrong names or values."""
        try:
            return read_settings(cls, values)
        except SettingError as error:
            raise CheckpointError(f"these are no settings of a USRNet: {error}") from None


class Fft(nn.Module):
    """The Fourier transform of real planes; what an export replaces by constant matrices."""

    def forward(self, planes: Tensor) -> Spectrum:
        """Of `[..., h, w]` float32."""
        spectrum = torch.fft.rfft2(planes)
        return spectrum.real, spectrum.imag

    def inverse(self, spectrum: Spectrum, size: tuple[int, int]) -> Tensor:
        """Planes `[..., h, w]` of `size`, (h, w)."""
        return torch.fft.irfft2(torch.complex(*spectrum), s=size)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res(x)


class Prior(nn.Module):
    """The U-Net: an image and how noisy to take it for, to a cleaner image. It has no biases."""

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
        """`[N,3,H,W]` from the same, and `beta` `[N]`; computes in the dtype of its weights."""
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
        """See `Usrnet.initialize`."""
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
    """Noise level and scale to the step sizes alpha and beta of every iteration."""

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
        """`alpha` and `beta`, `[N, iterations]` each, from `noise` `[N]`."""
        found = self.mlp(torch.stack((noise, torch.full_like(noise, scale)), dim=1)) + _FLOOR
        alpha, beta = found.chunk(2, dim=1)
        return alpha, beta

    def initialize(self) -> None:
        """See `Usrnet.initialize`."""
        first, middle, last = (cast(nn.Linear, self.mlp[index]) for index in (0, 2, 4))
        count = len(last.bias) // 2
        # One unit carries the noise through, and alpha grows with it from the start: a data step
        # that trusts noisy pixels blows up.
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
    """The whole network."""

    def __init__(self, settings: UsrnetSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or UsrnetSettings()
        self.hyper = Hyper(self.settings)
        self.prior = Prior(self.settings)
        self.fourier: nn.Module = Fft()
        self.training_record: dict[str, Any] = {}
        """How the weights came to be; empty for random ones."""

    @torch.no_grad()
    def initialize(self) -> None:
        """Start where training has little left to do: data steps of a sensible length, and a prior
        that hands its image through."""
        self.hyper.initialize()
        self.prior.initialize()

    def forward(
        self, lr: Tensor, kernel: Tensor, scale: int, noise: Tensor | float = 0.0
    ) -> Tensor:
        """SR images `[N,3,sh,sw]`, about in [0,1], not clamped, of `lr` `[N,3,h,w]` in [0,1].

        `kernel` `[N,k,k]` (or `[1,k,k]`): odd k, sum 1, in the FKP convention. `noise`: the
        standard deviation of the noise in `lr`, for images in [0,1], one number or `[N]`.
        Differentiable in all of them. The data steps are float32 even under autocast. Raises
        `InputError` for other shapes.
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
    """Where the package has weights of its own."""
    return Path(ikc_deploy.weights.__file__).parent / "usrnet" / "usrnet-tiny.safetensors"


def load_usrnet(path: str | PathLike[str] | None = None) -> Usrnet:
    """A USRNet of a checkpoint, by default the shipped one: float32, evaluation mode, on the CPU.

    Raises `CheckpointError` if the file is missing, damaged, or no USRNet checkpoint of ours.
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
    fill({"": network}, tensors, f"'{source}' does not hold the USRNet that it says")
    return network.eval().requires_grad_(False)


def save_usrnet(
    network: Usrnet, path: str | PathLike[str], dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint atomically; weights as `dtype` (float16 halves what is shipped)."""
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


class DataStep:
    """What the LR images and their kernels ask of an SR image; float32."""

    def __init__(self, fourier: Any, lr: Tensor, kernel: Tensor, scale: int) -> None:
        self._fourier, self._scale = fourier, scale
        self._size = (lr.shape[-2], lr.shape[-1])
        # A correlates, hence the conjugate.
        real, imaginary = fourier(_phases(_placed(kernel, lr, scale)[:, None], scale))
        self._blur: Spectrum = (real, -imaginary)
        self._power = (real**2 + imaginary**2).sum(dim=2)
        self._wanted: Spectrum = fourier(lr)

    def __call__(self, x: Tensor, alpha: Tensor) -> Tensor:
        """`x` `[N,3,sh,sw]` drawn towards images that degrade to `lr`; `alpha` `[N]` holds back."""
        real, imaginary = self._fourier(_phases(x, self._scale))
        blur_real, blur_imaginary = self._blur
        held = self._power + alpha[:, None, None, None]
        missing_real = (
            self._wanted[0] - (blur_real * real - blur_imaginary * imaginary).sum(dim=2)
        ) / held
        missing_imaginary = (
            self._wanted[1] - (blur_real * imaginary + blur_imaginary * real).sum(dim=2)
        ) / held
        missing_real, missing_imaginary = missing_real[:, :, None], missing_imaginary[:, :, None]
        change = self._fourier.inverse(
            (
                blur_real * missing_real + blur_imaginary * missing_imaginary,
                blur_real * missing_imaginary - blur_imaginary * missing_real,
            ),
            self._size,
        )
        return x + _interleaved(change, self._scale)


def _phases(image: Tensor, scale: int) -> Tensor:
    """The s^2 images `[N,C,s*s,h,w]` of every s-th pixel of `[N,C,sh,sw]`."""
    count, channels, height, width = image.shape
    blocks = image.reshape(count, channels, height // scale, scale, width // scale, scale)
    return blocks.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)


def _interleaved(phases: Tensor, scale: int) -> Tensor:
    """The inverse of `_phases`."""
    count, channels, _, height, width = phases.shape
    blocks = phases.reshape(count, channels, scale, scale, height, width)
    return blocks.permute(0, 1, 4, 2, 5, 3).reshape(count, channels, height * scale, width * scale)


def _placed(kernel: Tensor, lr: Tensor, scale: int) -> Tensor:
    """Kernels `[N,k,k]` round the corner of SR planes `[N,sh,sw]`; what is larger wraps round."""
    taps = torch.arange(kernel.shape[-1], device=kernel.device) - kernel.shape[-1] // 2
    rows, columns = (
        (taps % length == torch.arange(length, device=kernel.device)[:, None]).to(kernel.dtype)
        for length in (scale * lr.shape[-2], scale * lr.shape[-1])
    )
    return rows @ kernel @ columns.T


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
