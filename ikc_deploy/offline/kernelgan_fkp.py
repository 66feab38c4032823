"""KernelGAN-FKP: estimates the blur kernel by the similarity of patches across scales.

A critic learns the distribution of patches of the LR image. The generator blurs the LR image with
a kernel from the flow and halves its size. It is trained until the critic cannot distinguish its
patches from those of the LR image (FKP, CVPR 2021, section 4.2). This gives the kernel for x2, from
which `x4_kernel` derives that for x4.

The method estimates a kernel only. The image is the one nearest to bicubic upscaling that degrades
to the LR image under that kernel (`enforce_data_consistency`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.torch_ops import to_image, to_tensor
from ikc_deploy.networks.flow import load_flow
from ikc_deploy.offline.critic import Critic, gradient_penalty
from ikc_deploy.offline.data_consistency import enforce_data_consistency
from ikc_deploy.offline.fit_settings import FlowFitSettings
from ikc_deploy.offline.forward_model import PaddedHr, bicubic_padded_hr, degrade
from ikc_deploy.offline.kernel_code import KernelCode, weights_digest
from ikc_deploy.offline.optimize import Losses
from ikc_deploy.offline.patches import Patches
from ikc_deploy.offline.preconditions import check_device, check_image, image_digest

NAME: Final = "kernelgan-fkp"
SCALES: Final = (2, 4)
ITERATIONS: Final = {2: 1000, 4: 4000}
"""Default number of iterations by scale, from the released code of the paper."""

_X2: Final = 2


@dataclass(frozen=True)
class KernelGanFkpSettings(FlowFitSettings):
    """The settings of KernelGAN-FKP; defaults from the released code of the paper.

    `iterations` is 1000 at x2 and 4000 at x4 by default. `prior` is a flow for x2, also used at x4.

    Raises:
        InputError: A value is out of range.
    """

    crop: int = 64
    """Side, in LR pixels, of the patches that are downscaled; for 64 the critic sees 27x27."""
    batch: int = 64
    """Number of patches in a step."""
    turns: int = 3
    """Number of steps of the critic, and of the kernel, in each iteration."""
    channels: int = 32
    """Number of channels of the critic."""
    rate: float = 5e-4
    """Learning rate of the critic and of the kernel code (Adam)."""
    penalty: float = 0.1
    """Weight of the gradient penalty."""

    def __post_init__(self) -> None:
        """Require numbers in range."""
        super().__post_init__()
        if min(self.batch, self.turns, self.channels) < 1:
            raise InputError("batch, turns and channels must be at least 1")
        if self.crop < 32:
            raise InputError(f"a crop of {self.crop} is too small for the critic; give at least 32")
        if min(self.rate, self.penalty) <= 0:
            raise InputError("rate and penalty must be positive")


class KernelGanFkp:
    """A fit in progress; implements `Fit`.

    Args:
        lr: LR image, RGB `[H,W,3]` uint8.
        scale: Scale factor.
        settings: Settings of the fit.

    Raises:
        InputError: The image is smaller than a crop or flat, the scale is not 2 or 4, or the device
            is not available.
        CheckpointError: The weights of the flow are unusable.
    """

    def __init__(self, lr: NDArray[np.uint8], scale: int, settings: KernelGanFkpSettings) -> None:
        check_image(lr, scale, SCALES, settings.crop, NAME)
        check_device(settings.device)
        self.iterations = settings.iterations or ITERATIONS[scale]
        self._settings = settings
        self._scale = scale
        self._lr = lr
        flow = load_flow(_X2, settings.prior)
        self.fingerprint = _fingerprint(lr, scale, settings) | {"flow": weights_digest(flow)}
        self._generator = torch.Generator().manual_seed(settings.seed)
        betas = (0.5, 0.999)
        self._code = KernelCode(flow, self._generator, settings.rate, settings.device, betas)
        self._critic = _new_critic(settings)
        self._optimizer = torch.optim.Adam(self._critic.parameters(), settings.rate, betas)
        picture = to_tensor(lr, settings.device)
        self._large = Patches(picture, settings.crop)
        self._small = Patches(picture, (settings.crop - flow.size) // _X2 + 1)

    def step(self) -> Losses:
        """Do one iteration and return its losses.

        Returns:
            `loss`, that of the kernel, and `critic`, that of the critic without its penalty.
        """
        large = self._large.draw(self._settings.batch, self._generator)
        real = self._small.draw(self._settings.batch, self._generator)
        with torch.no_grad():
            fake = degrade(large, self._code.kernel(), _X2)
        for _ in range(self._settings.turns):
            critic_loss = self._improve_critic(real, fake)
        for _ in range(self._settings.turns):
            loss = self._improve_kernel(large)
        return {"loss": loss, "critic": critic_loss}

    def image(self) -> NDArray[np.uint8]:
        """Return the current SR image, RGB `[sH, sW, 3]`: bicubic, consistent with LR."""
        kernel = torch.from_numpy(self.kernel())
        padded_hr = PaddedHr.of(self._lr, self._scale, len(kernel))
        lr = to_tensor(self._lr, "cpu").double()
        found = enforce_data_consistency(
            bicubic_padded_hr(self._lr, padded_hr), lr, kernel, self._scale
        )
        return to_image(padded_hr.picture(found, self._settings.alignment))

    def kernel(self) -> NDArray[np.float64]:
        """Return the current kernel, sum 1, in the FKP convention: 11x11 at x2, 19x19 at x4."""
        x2_kernel = self._code.array()
        return x2_kernel if self._scale == _X2 else x4_kernel(x2_kernel)

    def state(self) -> dict[str, Any]:
        """Return everything that later steps depend on, the random generator included."""
        return {
            "critic": self._critic.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "code": self._code.state(),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state` of a fit with the same fingerprint."""
        self._critic.load_state_dict(state["critic"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._code.restore(state["code"])
        self._generator.set_state(state["generator"])

    def _improve_critic(self, real: Tensor, fake: Tensor) -> float:
        loss = self._critic(fake).mean() - self._critic(real).mean()
        penalty = gradient_penalty(self._critic, real, fake, self._generator)
        self._optimizer.zero_grad()
        (loss + self._settings.penalty * penalty).backward()
        self._optimizer.step()
        return float(loss.detach())

    def _improve_kernel(self, large: Tensor) -> float:
        loss = -self._critic(degrade(large, self._code.kernel(), _X2)).mean()
        self._code.zero_grad()
        loss.backward()
        self._code.step()
        return float(loss.detach())


def x4_kernel(kernel: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the x4 kernel that equals two x2 degradations in a row.

    Two blurs, each followed by taking every second pixel, equal one blur with kernel * (kernel
    dilated by two), followed by taking every fourth pixel. Of its 3k - 2 pixels per side the middle
    ones are kept (19 of 31 for k = 11, the size of the flow at x4).

    Args:
        kernel: Kernel `[k,k]` of x2, sum 1.

    Returns:
        Kernel `[2k-3,2k-3]` of x4, sum 1.
    """
    size = len(kernel)
    full = np.zeros((3 * size - 2, 3 * size - 2))
    for row in range(size):
        for column in range(size):
            top, left = 2 * row, 2 * column
            full[top : top + size, left : left + size] += kernel[row, column] * kernel
    margin = (size + 1) // 2
    middle = full[margin:-margin, margin:-margin]
    return middle / middle.sum()


def _fingerprint(
    lr: NDArray[np.uint8], scale: int, settings: KernelGanFkpSettings
) -> dict[str, Any]:
    # These settings may differ when a fit is resumed.
    identity = asdict(settings)
    for name in ("iterations", "device", "alignment", "prior"):
        del identity[name]
    return {"method": NAME, "lr": image_digest(lr), "scale": scale} | identity


def _new_critic(settings: KernelGanFkpSettings) -> Critic:
    # Layers draw from torch's global generator; the caller's state is restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        critic = Critic(settings.channels)
    return critic.to(settings.device)
