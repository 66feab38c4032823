"""The fit of IKE: its iterations and its result."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.imaging.torch_ops import resize, to_image
from ikc_deploy.offline.ike import losses, schedule
from ikc_deploy.offline.ike.auxiliary_networks import Discriminator, Upsampler
from ikc_deploy.offline.ike.ike_settings import IkeSettings
from ikc_deploy.offline.ike.invertible import InvertibleNetwork
from ikc_deploy.offline.ike.lr_image import LrImage, check_lr
from ikc_deploy.offline.ike.schedule import Schedule
from ikc_deploy.offline.optimize import Losses

_BETAS = (0.25, 0.999)
"""Betas of Adam."""


class _Networks(nn.Module):
    """All trained networks, initialised from the settings' seed."""

    def __init__(self, colours: int, scale: int, settings: IkeSettings) -> None:
        super().__init__()
        # The state of the caller's random generator is restored.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)
            self.invertible = InvertibleNetwork(scale, settings)
            self.upsampler = Upsampler(colours * self.invertible.rest, scale, settings.width)
            self.discriminator_lr = Discriminator(colours, settings.width)
            self.discriminator_hr = Discriminator(colours, settings.width)

    def downscale(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map `[N,C,H,W]` to the small image `[N,C,H/s,W/s]` and the rest of all colours."""
        small, rest = self.invertible(image.flatten(0, 1)[:, None])
        images = image.shape[:2]
        return small.view(*images, *small.shape[2:]), rest.view(*images, *rest.shape[1:])

    def enlarge(self, image: Tensor, rest: Tensor) -> Tensor:
        """Map a small image and its rest to the image s times as large."""
        larger = self.upsampler(rest.flatten(1, 2)).reshape(-1, rest.shape[2], *image.shape[2:])
        large = self.invertible.inverse(image.flatten(0, 1)[:, None], larger)
        return large.view(*image.shape[:2], *large.shape[2:])


class IkeFit:
    """A fit of IKE to one LR image; implements `optimize.Fit`.

    An image with three equal colours is fitted as one colour.

    Args:
        lr: RGB `[H,W,3]` uint8, both sides at least 16 `scale` pixels.
        scale: Scale factor: 2 or 4.
        settings: Settings of the fit.

    Raises:
        InputError: The image, the scale, the crop or the device is unusable (see `check_lr`).
    """

    def __init__(self, lr: NDArray[np.uint8], scale: int, settings: IkeSettings) -> None:
        check_lr(lr, scale, settings)
        self.iterations = settings.iterations
        self._settings, self._scale, self._size = settings, scale, lr.shape[:2]
        self._device = torch.device(settings.device)
        self._lr = LrImage.of(lr)
        self._side = self._lr.crop_side(settings.crop, scale)
        self._random = torch.Generator().manual_seed(settings.seed)
        self._schedule = Schedule(settings.iterations)
        networks = _Networks(self._lr.colours, scale, settings).to(self._device)
        # Channels-last is 10 to 20 % faster on a CPU.
        self._networks = networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parts = (
            (networks.invertible, networks.upsampler),
            (networks.discriminator_lr,),
            (networks.discriminator_hr,),
        )
        self._optimizers = [
            torch.optim.Adam([w for part in each for w in part.parameters()], betas=_BETAS)
            for each in parts
        ]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The image's digest, the scale and all settings but the device."""
        identity = {"method": "ike", "image": self._lr.id, "scale": self._scale}
        return identity | self._settings.identity

    def step(self) -> Losses:
        """Train the invertible network and the upsampler, then the discriminators, by one step."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._schedule.learning_rate
        crops, real = self._crops(), self._crops()
        small, rest = self._networks.downscale(crops)
        large = self._networks.enlarge(crops, rest)
        values = self._train_networks(crops, small, large)
        _, discriminator_lr, discriminator_hr = self._optimizers
        networks = self._networks
        values["discriminator_lr"] = _train_discriminator(
            discriminator_lr, networks.discriminator_lr, small, real
        )
        if self._settings.csr_backward:
            values["discriminator_hr"] = _train_discriminator(
                discriminator_hr, networks.discriminator_hr, large, real
            )
        self._schedule.advance(values["bicubic"])
        return values

    def image(self) -> NDArray[np.uint8]:
        """Return the upscaled image: the inverse of the LR image with its upsampled rest."""
        networks, whole = self._networks, self._lr.padded(self._scale).to(self._device)
        with torch.no_grad():
            # One colour at a time, to save memory.
            colours = whole.tensor_split(self._lr.colours, dim=1)
            downscaled = [networks.downscale(colour)[1] for colour in colours]
            larger = networks.upsampler(torch.cat(downscaled, dim=1).flatten(1, 2))
            rests = larger.tensor_split(self._lr.colours, dim=1)
            pairs = zip(colours, rests, strict=True)
            sr = torch.cat([networks.invertible.inverse(*pair) for pair in pairs], dim=1)
        height, width = (self._scale * side for side in self._size)
        return to_image(sr[:, :, :height, :width].expand(-1, 3, -1, -1))

    def kernel(self) -> None:
        """Return None: the downscaling is a network and has no kernel."""

    def state(self) -> dict[str, Any]:
        """Return weights, optimizers, schedule and random generator."""
        return {
            "networks": self._networks.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedule": self._schedule.state(),
            "random": self._random.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state`."""
        self._networks.load_state_dict(state["networks"])
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self._schedule.restore(state["schedule"])
        self._random.set_state(state["random"])

    def _crops(self) -> Tensor:
        crops = self._lr.crops(self._settings.batch, self._side, self._random)
        return crops.to(self._device)

    def _train_networks(self, crops: Tensor, small: Tensor, large: Tensor) -> Losses:
        """Train the networks that produced both images; return all losses, unweighted."""
        settings, plan, networks = self._settings, self._schedule, self._networks
        downscaled, enlarged = resize(crops, 1 / self._scale), resize(crops, self._scale)
        weighted = {
            "patches": (1.0, losses.lsgan_loss(networks.discriminator_lr(small), real=True)),
            "bicubic": (plan.bicubic, (small - downscaled).square().mean()),
            "variation": (schedule.TOTAL_VARIATION, losses.total_variation(large)),
        }
        if settings.energy:
            energy = losses.energy(small, downscaled) + losses.energy(large, enlarged)
            weighted["energy"] = (plan.energy, energy)
        if settings.csr_backward:
            patches = losses.lsgan_loss(networks.discriminator_hr(large), real=True)
            weighted["patches_large"] = (schedule.CSR_BACKWARD, patches)
        if settings.interpolation:
            distance = losses.interpolation(large, enlarged)
            weighted["interpolation"] = (schedule.INTERPOLATION, distance)
        loss = torch.stack([weight * value for weight, value in weighted.values()]).sum()
        optimizer = self._optimizers[0]
        optimizer.zero_grad()
        torch.autograd.backward(loss, inputs=_weights(optimizer))
        optimizer.step()
        return {"loss": loss.item()} | {name: value.item() for name, (_, value) in weighted.items()}


def _train_discriminator(
    optimizer: torch.optim.Optimizer, discriminator: Discriminator, generated: Tensor, real: Tensor
) -> float:
    """Train a discriminator by one step; return its loss."""
    scores = (discriminator(real), discriminator(generated.detach()))
    loss = losses.lsgan_loss(scores[0], real=True) + losses.lsgan_loss(scores[1], real=False)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
