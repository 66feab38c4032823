"""Layers that several exact rewrites share; `rewrites` explains the terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.networks.layers import widened
from ikc_deploy.networks.sftmd import CodeBorder, CodeNormalization


class CodeBiases(nn.Module):
    """The biases that a code adds to convolutions of features and of its map, by one affine map.

    With border "replicate" a bias is `[N,C,1,1]`. With "zero" it is `[N,C,H,W]`: at the border some
    of the nine taps lie outside, so B[y,x] = sum_ij R[y,i] A[i,j] Q[x,j], where A holds the biases
    of the taps, and R, Q indicate the rows and columns of taps inside.

    Args:
        groups: Convolutions in the order of their use; those of a group are used as one, and all
            groups have the same number of output channels.
        channels: Number of channels of the features, which come before those of the code.
        border: Values of the features and of the map outside the image.
        normalize: Normalisation of the code; None for none.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[nn.Conv2d]],
        channels: int,
        border: CodeBorder,
        normalize: CodeNormalization | None = None,
    ) -> None:
        super().__init__()
        self.border = border
        self.width = sum(conv.out_channels for conv in groups[0])
        self.taps = 9 if border == "zero" else 1
        maps = [code_bias(conv, channels, self.taps) for group in groups for conv in group]
        weight, bias = (torch.cat(parts) for parts in zip(*maps, strict=True))
        if normalize is not None:
            weight, bias = normalized_map(weight, bias, normalize)
        self.affine = linear(weight, bias)

    def forward(self, code: Tensor, features: Tensor) -> Iterator[Tensor]:
        """Yield the biases of the groups for codes `[N,code_size]` and the size of `features`."""
        stacked = self.affine(code)
        parts = stacked.split(self.width * self.taps, dim=1)
        if self.border == "replicate":
            for part in parts:
                yield part[:, :, None, None].to(features.dtype)
            return
        rows = taps_inside(features.shape[2], stacked)
        columns = taps_inside(features.shape[3], stacked).T
        for part in parts:
            taps = part.reshape(-1, self.width, 3, 3)
            yield (rows @ (taps @ columns)).to(features.dtype)


class ShuffleTail(nn.Module):
    """PixelShuffle stages, activations first; the output convolution folded through a last x2.

    Args:
        layers: Convolutions, PixelShuffles and activations in turn, then the output convolution.
        slope: Slope of the activations; None if there are none.
    """

    def __init__(self, layers: Iterable[nn.Module], slope: float | None = None) -> None:
        super().__init__()
        layers = list(layers)
        *convs, output = (layer for layer in layers if isinstance(layer, nn.Conv2d))
        self.convs, self.slope = nn.ModuleList(convs), slope
        shuffles = [layer for layer in layers if isinstance(layer, nn.PixelShuffle)]
        self.factors = [shuffle.upscale_factor for shuffle in shuffles]
        # With a factor of 3 the folded kernel would have 2.8 times the products, most with zero.
        self.folded = self.factors[-1] == 2
        self.output = fold_through_shuffle(output, 2) if self.folded else output

    def forward(self, features: Tensor, lr: Tensor) -> Tensor:  # noqa: ARG002 - as CompactTail
        """Return the image `[N,3,s*H,s*W]`, not clamped, at least float32, from `[N,C,H,W]`."""
        last = len(self.factors) - 1
        for index, factor in enumerate(self.factors):
            features = self.convs[index](features)
            if self.slope is not None:
                features = F.leaky_relu(features, self.slope)
            if index < last or not self.folded:
                features = F.pixel_shuffle(features, factor)
        image = widened(self.output(features))
        return F.pixel_shuffle(image, self.factors[-1]) if self.folded else image


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the linear layer of a weight `[out,in]` and a bias `[out]`, which are copied."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def linear_of(conv: nn.Module) -> nn.Linear:
    """Return the linear layer that equals a 1x1 convolution on vectors."""
    conv = cast(nn.Conv2d, conv)
    return linear(conv.weight[:, :, 0, 0], bias_of(conv))


def convolution(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """Return the convolution of a weight `[out,in,k,k]` and a bias `[out]`, which are copied.

    Its border is zero, and its output as large as its input.
    """
    outputs, inputs, side, _ = weight.shape
    conv = nn.Conv2d(
        inputs, outputs, side, padding=side // 2, bias=bias is not None, dtype=weight.dtype
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        if bias is not None:
            bias_of(conv).copy_(bias)
    return conv


def normalized_map(
    weight: Tensor, bias: Tensor, normalize: CodeNormalization
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of an affine map of codes that normalises them first."""
    mean = normalize.get_buffer("mean").to(weight.dtype)
    scaled = weight / normalize.get_buffer("deviation").to(weight.dtype)
    return scaled, bias - scaled @ mean


def bias_of(layer: nn.Conv2d) -> Tensor:
    """Return the bias of a convolution.

    Raises:
        ValueError: It has none.
    """
    if layer.bias is None:
        raise ValueError("a convolution has no bias, which this rewrite needs")
    return layer.bias


def code_bias(conv: nn.Conv2d, channels: int, taps: int) -> tuple[Tensor, Tensor]:
    """Return weight `[width*taps,code_size]` and bias of the map from code to a convolution's bias.

    The convolution's own bias is added to the centre tap, which always lies inside the image.
    """
    weight = conv.weight.detach()[:, channels:].permute(0, 2, 3, 1)
    bias = weight.new_zeros(weight.shape[:3])
    bias[:, 1, 1] = bias_of(conv).detach()
    if taps == 1:
        weight, bias = weight.sum(dim=(1, 2)), bias.sum(dim=(1, 2))
    return weight.reshape(-1, weight.shape[-1]), bias.reshape(-1)


def taps_inside(length: int, like: Tensor) -> Tensor:
    """Return `[length,3]`: 1 where the tap at offset -1, 0, +1 lies inside, else 0."""
    position = torch.arange(length, device=like.device)
    inside = torch.stack((position > 0, position >= 0, position < length - 1), dim=1)
    return inside.to(like.dtype)


def fold_through_shuffle(conv: nn.Conv2d, factor: int) -> nn.Conv2d:
    """Return the convolution before PixelShuffle(factor) that equals `conv` after it.

    Its result has to be shuffled as well.
    """
    reach = conv.kernel_size[0] // 2
    wide = -(-reach // factor)
    side = 2 * wide + 1
    outputs, inputs = conv.out_channels, conv.in_channels
    dtype = conv.weight.dtype
    folded = nn.Conv2d(inputs * factor**2, outputs * factor**2, side, padding=wide, dtype=dtype)
    with torch.no_grad():
        folded.weight.zero_()
        target = folded.weight.view(outputs, factor, factor, inputs, factor, factor, side, side)
        for py in range(factor):
            for px in range(factor):
                for dy in range(-reach, reach + 1):
                    for dx in range(-reach, reach + 1):
                        cell_y, phase_y = divmod(py + dy, factor)
                        cell_x, phase_x = divmod(px + dx, factor)
                        at = (slice(None), py, px, slice(None), phase_y, phase_x)
                        at_cell = (cell_y + wide, cell_x + wide)
                        target[at + at_cell] = conv.weight[:, :, dy + reach, dx + reach]
        bias_of(folded).copy_(bias_of(conv).repeat_interleave(factor**2))
    return folded
