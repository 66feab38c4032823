"""Simulation of rounding in torch: the reference for all limits of the parity gate.

Weights are rounded as in an export. Activations are rounded before and after every convolution; in
float16 also after every other operation. Exported graphs are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import deepcopy
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ikc_deploy.bundle.manifest import Precision
from ikc_deploy.export.int8 import LEVELS, MIN_CHANNELS
from ikc_deploy.networks.sftmd import BicubicPhases
from ikc_deploy.networks.usrnet import Usrnet

BODY: Final = "body."
"""Prefix of the names of a network's weights in its graph."""


class Rounding:
    """Rounds the convolutions of a network to one precision.

    Args:
        precision: Precision of the export.
        kept: Names, in the graph, of the weights of convolutions that stay in float32.
    """

    def __init__(self, precision: Precision, kept: Collection[str] = ()) -> None:
        self.precision = precision
        self._kept = frozenset(kept)

    def of_weights(self, module: nn.Module) -> nn.Module:
        """Return a copy of a rewritten network with rounded weights, stored as float32."""
        rounded = deepcopy(module)
        for name, part in rounded.named_modules():
            if isinstance(part, nn.Conv2d) and self._rounds(f"{BODY}{name}.weight", part.weight):
                part.weight.data = self._weight(part.weight.data)
                if part.bias is not None and self.precision == "fp16":
                    part.bias.data = _half(part.bias.data)
            elif isinstance(part, BicubicPhases) and self.precision == "fp16":
                part.taps = _half(part.get_buffer("taps"))
        return rounded

    def of_activations(self, module: nn.Module) -> TorchFunctionMode:
        """Return a context in which convolutions of `module` round their inputs and outputs."""
        chosen = {
            id(part.weight)
            for name, part in module.named_modules()
            if isinstance(part, nn.Conv2d) and self._rounds(f"{BODY}{name}.weight", part.weight)
        }
        if self.precision == "fp16":
            # Includes the convolution of the bicubic image, which is not a module.
            return _HalfPlanes()
        return _RoundedConvolutions(_eight_bits, lambda weight: id(weight) in chosen)

    def of_image(self, image: Tensor) -> Tensor:
        """Round an image like the output of a graph."""
        return _half(image) if self.precision == "fp16" else image

    def _rounds(self, name: str, weight: Tensor) -> bool:
        if self.precision == "fp16":
            return True
        return (
            self.precision == "int8" and name not in self._kept and weight.shape[1] >= MIN_CHANNELS
        )

    def _weight(self, weight: Tensor) -> Tensor:
        if self.precision == "fp16":
            return _half(weight)
        largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
        scale = torch.where(largest > 0, largest / LEVELS, torch.ones_like(largest))
        return torch.round(weight / scale) * scale


def rounded_prior(network: Usrnet) -> Usrnet:
    """Return a copy of a USRNet whose prior rounds to float16 but computes in float32.

    Weights, inputs and outputs of convolutions are rounded.
    """
    copied = deepcopy(network)
    half = Rounding("fp16")
    copied.prior = cast(Any, _RoundedModule(half.of_weights(copied.prior), half))
    return copied


class _RoundedModule(nn.Module):
    """A module whose convolutions round their inputs and outputs."""

    def __init__(self, module: nn.Module, rounding: Rounding) -> None:
        super().__init__()
        self.module, self._rounding = module, rounding

    def forward(self, *inputs: Tensor) -> Tensor:
        with self._rounding.of_activations(self.module):
            output: Tensor = self.module(*inputs)
        return output


class _RoundedConvolutions(TorchFunctionMode):
    def __init__(
        self, rounded: Callable[[Tensor], Tensor], chosen: Callable[[Tensor], bool]
    ) -> None:
        super().__init__()
        self._rounded, self._chosen = rounded, chosen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not torch.conv2d or not self._chosen(args[1]):
            return func(*args, **(kwargs or {}))
        return self._rounded(func(self._rounded(args[0]), *args[1:], **(kwargs or {})))


class _HalfPlanes(TorchFunctionMode):
    """A mode in which all operations on `[N,C,H,W]` round to float16, not only convolutions."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.conv2d:
            args = (_half(args[0]), *args[1:])
        output = func(*args, **(kwargs or {}))
        planes = isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point()
        return _half(output) if planes else output


def _half(values: Tensor) -> Tensor:
    return values.half().to(values.dtype)


def _eight_bits(values: Tensor) -> Tensor:
    """Round to 8 bits with one scale per tensor, which represents the largest value exactly."""
    scale = values.abs().max() / LEVELS
    return torch.round(values / scale) * scale if scale > 0 else values
