"""KernelGAN-FKP: the kernel under which a picture, shrunk, looks like itself.

Small patches recur across scales. A critic learns what patches of the LR picture look like; the
generator is nothing but a kernel from the flow, which blurs and halves the LR picture so that the
critic cannot tell (FKP, CVPR 2021, section 4.2). The kernel halves; that of x4 is two halvings.

The method finds a kernel. The picture is then the one nearest to bicubic upscaling that gives the
LR picture under that kernel (`enforce_data_consistency`).
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import InputError
from ikc_deploy.networks.flow import load_flow
from ikc_deploy.offline.critic import Critic, gradient_penalty
from ikc_deploy.offline.data_consistency import enforce_data_consistency
from ikc_deploy.offline.forward_model import (
    Alignment,
    PaddedHr,
    bicubic_padded_hr,
    check_alignment,
    degrade,
    to_image,
    to_tensor,
)
from ikc_deploy.offline.kernel_code import KernelCode, weights_id
from ikc_deploy.offline.optimize import FitResult, Losses, Progress, optimize
from ikc_deploy.offline.patches import Patches
from ikc_deploy.offline.preconditions import check_device, check_picture, picture_id

NAME: Final = "kernelgan-fkp"
SCALES: Final = (2, 4)
ITERATIONS: Final = {2: 1000, 4: 4000}
"""By scale, in the paper's released code."""

_HALF: Final = 2


@dataclass(frozen=True)
class KernelGanFkpSettings:
    """The paper's, from its released code."""

    iterations: int | None = None
    """None means 1000 at x2 and 4000 at x4."""
    seed: int = 0
    device: str = "cpu"
    alignment: Alignment = "centre"
    """Of the picture, see `degrading`; nothing that is fitted depends on it."""
    prior: Path | None = None
    """Weights of the x2 kernel flow, at x4 too; None means the shipped ones."""
    crop: int = 64
    """Side of the patches that are shrunk; the critic sees what is left, 27 of 64."""
    batch: int = 64
    turns: int = 3
    """Steps of the critic, and then of the kernel, in each iteration."""
    channels: int = 32
    """Of the critic."""
    rate: float = 5e-4
    """Adam's, of both."""
    penalty: float = 0.1
    """Weight of the gradient penalty."""

    def __post_init__(self) -> None:
        check_alignment(self.alignment)
        counts = (1 if self.iterations is None else self.iterations, self.batch, self.turns)
        if min(*counts, self.channels) < 1:
            raise InputError("iterations, batch, turns and channels start at 1")
        if self.seed < 0:
            raise InputError(f"the seed cannot be negative, got {self.seed}")
        if self.crop < 32:
            raise InputError(f"a crop of {self.crop} leaves the critic nothing; give at least 32")
        if min(self.rate, self.penalty) <= 0:
            raise InputError("rate and penalty must be positive")


def fit(
    lr: NDArray[np.uint8],
    scale: int,
    settings: KernelGanFkpSettings | None = None,
    progress: Progress = lambda *_: None,
    *,
    stop: threading.Event | None = None,
    state: Path | None = None,
) -> FitResult:
    """Find the kernel of RGB `[H,W,3]` uint8, and the picture that goes with it.

    See `optimize` for `progress`, `stop` and `state`. Raises `InputError`, before anything is
    fitted, for a picture that is smaller than a crop or flat, a scale other than 2 and 4, or a
    device that is not there; `CheckpointError` for unusable weights of the flow.
    """
    gan = KernelGanFkp(lr, scale, settings or KernelGanFkpSettings())
    return optimize(gan, progress, stop=stop, state=state)


class KernelGanFkp:
    """The method at work; a `Fit`."""

    def __init__(self, lr: NDArray[np.uint8], scale: int, settings: KernelGanFkpSettings) -> None:
        check_picture(lr, scale, SCALES, settings.crop, NAME)
        check_device(settings.device)
        self.iterations = settings.iterations or ITERATIONS[scale]
        self._settings = settings
        self._scale = scale
        self._lr = lr
        flow = load_flow(_HALF, settings.prior)
        self.fingerprint = _fingerprint(lr, scale, settings) | {"flow": weights_id(flow)}
        self._generator = torch.Generator().manual_seed(settings.seed)
        betas = (0.5, 0.999)
        self._code = KernelCode(flow, self._generator, settings.rate, settings.device, betas)
        self._critic = _new_critic(settings)
        self._optimizer = torch.optim.Adam(self._critic.parameters(), settings.rate, betas)
        picture = to_tensor(lr, settings.device)
        self._large = Patches(picture, settings.crop)
        self._small = Patches(picture, (settings.crop - flow.size) // _HALF + 1)

    def step(self) -> Losses:
        """See `Fit`: `loss` is the kernel's, `critic` the critic's, without its penalty."""
        large = self._large.draw(self._settings.batch, self._generator)
        real = self._small.draw(self._settings.batch, self._generator)
        with torch.no_grad():
            fake = degrade(large, self._code.kernel(), _HALF)
        for _ in range(self._settings.turns):
            told_apart = self._improve_critic(real, fake)
        for _ in range(self._settings.turns):
            loss = self._improve_kernel(large)
        return {"loss": loss, "critic": told_apart}

    def image(self) -> NDArray[np.uint8]:
        """See `Fit`."""
        kernel = torch.from_numpy(self.kernel())
        padded_hr = PaddedHr.of(self._lr, self._scale, len(kernel))
        lr = to_tensor(self._lr, "cpu").double()
        found = enforce_data_consistency(
            bicubic_padded_hr(self._lr, padded_hr), lr, kernel, self._scale
        )
        return to_image(padded_hr.picture(found, self._settings.alignment))

    def kernel(self) -> NDArray[np.float64]:
        """See `Fit`: 11x11 at x2, 19x19 at x4."""
        half = self._code.array()
        return half if self._scale == _HALF else twice(half)

    def state(self) -> dict[str, Any]:
        """See `Fit`."""
        return {
            "critic": self._critic.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "code": self._code.state(),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `Fit`."""
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
        loss = -self._critic(degrade(large, self._code.kernel(), _HALF)).mean()
        self._code.zero_grad()
        loss.backward()
        self._code.step()
        return float(loss.detach())


def twice(kernel: NDArray[np.floating]) -> NDArray[np.float64]:
    """The x4 kernel of halving twice by the x2 kernel `[k,k]`: `[2k-3,2k-3]`, sum 1.

    Blurring by k, halving, blurring by k and halving is one blur by k * (k spread out by two) and
    taking every fourth pixel. Of its 3k - 2 pixels on a side the middle ones are kept (19 of
    31 for k = 11, the size of the flow at x4).
    """
    size = len(kernel)
    whole = np.zeros((3 * size - 2, 3 * size - 2))
    for row in range(size):
        for column in range(size):
            top, left = 2 * row, 2 * column
            whole[top : top + size, left : left + size] += kernel[row, column] * kernel
    margin = (size + 1) // 2
    middle = whole[margin:-margin, margin:-margin]
    return middle / middle.sum()


def _fingerprint(
    lr: NDArray[np.uint8], scale: int, settings: KernelGanFkpSettings
) -> dict[str, Any]:
    # More iterations go on with fewer, and a fit may move to another device.
    asked = asdict(settings)
    for name in ("iterations", "device", "alignment", "prior"):
        del asked[name]
    return {"method": NAME, "lr": picture_id(lr), "scale": scale} | asked


def _new_critic(settings: KernelGanFkpSettings) -> Critic:
    # Layers draw from torch's own generator; a caller's is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        critic = Critic(settings.channels)
    return critic.to(settings.device)
