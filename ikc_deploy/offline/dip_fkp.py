"""DIP-FKP: fits an HR image (deep image prior) and its blur kernel (kernel flow) together.

The fit searches for an image of the U-Net and a kernel of the flow that together degrade to the LR
image (FKP, CVPR 2021, section 4.1). The first iterations minimise 1 - SSIM, which recovers
structure sooner. The kernel is frozen during the first iterations, when there is no image yet.

There are three differences from the paper. The image has a margin (see `forward_model`), so that
no periodic border is assumed. The result is a running mean, because single iterations fluctuate.
At the end, the image is made consistent with the LR image (see `enforce_data_consistency`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.torch_ops import ssim, to_image, to_tensor
from ikc_deploy.networks.flow import load_flow
from ikc_deploy.offline.data_consistency import enforce_data_consistency
from ikc_deploy.offline.fit_settings import ITERATIONS, FlowFitSettings
from ikc_deploy.offline.forward_model import PaddedHr, degrade
from ikc_deploy.offline.kernel_code import KernelCode, weights_digest
from ikc_deploy.offline.optimize import Losses
from ikc_deploy.offline.preconditions import check_device, check_image, check_memory, image_digest
from ikc_deploy.offline.prior_unet import (
    NOISE_CHANNELS,
    NOISE_PEAK,
    DeepImagePrior,
    smallest_side,
)

NAME: Final = "dip-fkp"
SCALES: Final = (2, 3, 4)
MIN_SIDE: Final = 32
"""Smallest side of an LR image in pixels."""

_AVERAGED_ITERATIONS: Final = 100
"""Number of iterations in the running mean."""
_FLOATS_PER_CHANNEL: Final = 30
"""Number of float32 values in memory per HR pixel and channel of the U-Net during a fit. 29 were
measured (peak resident memory) for the paper's U-Net on 96x96 LR pixels at x2."""


@dataclass(frozen=True)
class DipFkpSettings(FlowFitSettings):
    """The settings of DIP-FKP; defaults from the released code of the paper.

    Raises:
        InputError: A value is out of range.
    """

    iterations: Annotated[int, ITERATIONS] = 1000
    data_step: bool = True
    """Whether to make the image consistent with the LR image; the fit does not depend on it."""
    channels: int = 128
    """Number of channels of the U-Net."""
    levels: int = 5
    """Number of levels of the U-Net."""
    skip: int = 16
    """Number of channels of the skip connections."""
    network_rate: float = 5e-3
    """Learning rate of the U-Net (Adam)."""
    code_rate: float = 0.5
    """Learning rate of the kernel code (Adam)."""
    similarity_iterations: int = 80
    """Number of iterations that minimise 1 - SSIM; later ones minimise the squared error."""
    frozen_iterations: int = 75
    """Number of iterations before the kernel is fitted."""

    def __post_init__(self) -> None:
        """Require numbers in range."""
        super().__post_init__()
        counts = (self.channels, self.levels, self.skip)
        if min(counts) < 1:
            raise InputError(f"channels, levels and skip must be at least 1, got {counts}")
        waits = (self.similarity_iterations, self.frozen_iterations)
        if min(waits) < 0:
            raise InputError(f"the iterations of a phase cannot be negative, got {waits}")
        if min(self.network_rate, self.code_rate) <= 0:
            raise InputError("learning rates must be positive")


class DipFkp:
    """A fit in progress; implements `Fit`.

    Args:
        lr: LR image, RGB `[H,W,3]` uint8.
        scale: Scale factor.
        settings: Settings of the fit.

    Raises:
        InputError: The image is too small, too large for the memory or flat, the scale is not 2, 3
            or 4, or the device is not available.
        CheckpointError: The weights of the flow are unusable.
    """

    def __init__(self, lr: NDArray[np.uint8], scale: int, settings: DipFkpSettings) -> None:
        _check(lr, scale, settings)
        self.iterations = settings.iterations
        self._settings = settings
        self._scale = scale
        self._lr = to_tensor(lr, settings.device)
        flow = load_flow(scale, settings.prior)
        self.fingerprint = _fingerprint(lr, scale, settings) | {"flow": weights_digest(flow)}
        self._padded_hr = PaddedHr.of(lr, scale, flow.size)
        generator = torch.Generator().manual_seed(settings.seed)
        noise = torch.rand(1, NOISE_CHANNELS, *self._padded_hr.size, generator=generator)
        self._noise = (NOISE_PEAK * noise).to(settings.device)
        self._code = KernelCode(flow, generator, settings.code_rate, settings.device)
        self._network = _new_network(settings)
        self._optimizer = torch.optim.Adam(self._network.parameters(), settings.network_rate)
        self._iteration = 0
        self._image_mean = self._lr.new_zeros(1, 3, *self._padded_hr.size)
        self._kernel_mean = self._lr.new_zeros(flow.size, flow.size)

    def step(self) -> Losses:
        """Do one iteration and return its losses.

        Returns:
            `loss`, which is minimised, and `mse`, the mean squared error on the LR image.
        """
        picture = self._network(self._noise)
        kernel = self._code.kernel()
        kernel_is_fitted = self._iteration >= self._settings.frozen_iterations
        lr = degrade(picture, kernel if kernel_is_fitted else kernel.detach(), self._scale)
        mse = F.mse_loss(lr, self._lr)
        uses_ssim = self._iteration < self._settings.similarity_iterations
        loss = 1 - ssim(lr, self._lr) if uses_ssim else mse
        self._optimizer.zero_grad()
        self._code.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if kernel_is_fitted:
            self._code.step()
        self._iteration += 1
        self._update_means(picture.detach(), kernel.detach())
        return {"loss": float(loss.detach()), "mse": float(mse.detach())}

    def image(self) -> NDArray[np.uint8]:
        """Return the current SR image, RGB `[sH, sW, 3]`."""
        hr = self._image_mean
        if self._settings.data_step:
            kernel = torch.from_numpy(self.kernel())
            hr = enforce_data_consistency(
                hr.cpu().double(), self._lr.cpu().double(), kernel, self._scale
            )
        return to_image(self._padded_hr.picture(hr, self._settings.alignment))

    def kernel(self) -> NDArray[np.float64]:
        """Return the current kernel `[k, k]`, sum 1, in the FKP convention."""
        if not self._iteration:
            return self._code.array()
        kernel = self._kernel_mean.cpu().numpy().astype(np.float64)
        return kernel / kernel.sum()

    def state(self) -> dict[str, Any]:
        """Return everything that later steps depend on, the random generator included."""
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "code": self._code.state(),
            "iteration": self._iteration,
            "image": self._image_mean,
            "kernel": self._kernel_mean,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state` of a fit with the same fingerprint."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._code.restore(state["code"])
        self._iteration = state["iteration"]
        self._image_mean.copy_(state["image"])
        self._kernel_mean.copy_(state["kernel"])

    def _update_means(self, picture: Tensor, kernel: Tensor) -> None:
        # The plain mean at first: otherwise the initial zeros would keep their weight.
        weight = max(1 / self._iteration, 1 / _AVERAGED_ITERATIONS)
        self._image_mean.lerp_(picture, weight)
        self._kernel_mean.lerp_(kernel, weight)


def _check(lr: NDArray[np.uint8], scale: int, settings: DipFkpSettings) -> None:
    check_image(lr, scale, SCALES, MIN_SIDE, NAME)
    pixels = scale * scale * lr.shape[0] * lr.shape[1]
    min_side = smallest_side(settings.levels)
    if scale * min(lr.shape[:2]) < min_side:
        raise InputError(f"{settings.levels} levels need {min_side} HR pixels on each side")
    check_device(settings.device)
    check_memory(4 * _FLOATS_PER_CHANNEL * settings.channels * pixels, settings.device, NAME)


def _fingerprint(lr: NDArray[np.uint8], scale: int, settings: DipFkpSettings) -> dict[str, Any]:
    # These settings may differ when a fit is resumed.
    identity = asdict(settings)
    for name in ("iterations", "device", "alignment", "data_step", "prior"):
        del identity[name]
    return {"method": NAME, "lr": image_digest(lr), "scale": scale} | identity


def _new_network(settings: DipFkpSettings) -> DeepImagePrior:
    # Layers draw from torch's global generator; the caller's state is restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = DeepImagePrior(settings.channels, settings.levels, settings.skip)
    return network.to(settings.device)
