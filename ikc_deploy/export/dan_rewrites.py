"""Exact rewrites of DAN's networks; see `rewrites` for those of IKC, which also explains the terms.

- DANv1, code as bias: the code is constant in space, so the first convolution of a block gets a
  bias instead of more channels (with a zero border, the sum over the taps inside the image).
- DANv2, code as scale: the branch of the code is a vector, so all of it runs before the image, and
  a block keeps two convolutions, a scale for each channel and a sum.
- DANv2, doubling: features between groups are kept undoubled; powers of two in the weights of the
  next group and in the scales replace the factors, without rounding.
- The output convolution through the last PixelShuffle(2).
- Means, vectors, softmax and codes are float32 in every precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.export.rewrites import code_bias, fold_through_shuffle, taps_inside
from ikc_deploy.networks.dan1 import ChannelAttention, Dan1Block, Dan1Estimator, Dan1Restorer
from ikc_deploy.networks.dan2 import (
    GROUP_GAIN,
    Dan2Block,
    Dan2Estimator,
    Dan2Group,
    Dan2Restorer,
)
from ikc_deploy.networks.dan_layers import DAN_SLOPE, as_map, upscale_factors
from ikc_deploy.networks.layers import widened


class DanTail(nn.Module):
    """The upscaling head; its output convolution is folded through a last PixelShuffle(2).

    Args:
        upscale: Convolutions and PixelShuffles in turn, then the output convolution.
        scale: Scale factor.
    """

    def __init__(self, upscale: nn.Sequential, scale: int) -> None:
        super().__init__()
        *convs, output = (layer for layer in upscale if isinstance(layer, nn.Conv2d))
        self.convs = nn.ModuleList(convs)
        self.factors = upscale_factors(scale)
        # With a factor of 3 the folded kernel would have 2.8 times the products, most with zero.
        self.folded = self.factors[-1] == 2
        self.output = fold_through_shuffle(output, 2) if self.folded else output

    def forward(self, features: Tensor) -> Tensor:
        """Return the image `[N,3,s*H,s*W]`, not clamped, at least float32, from `[N,C,H,W]`."""
        last = len(self.factors) - 1
        for index, factor in enumerate(self.factors):
            features = self.convs[index](features)
            if index < last or not self.folded:
                features = F.pixel_shuffle(features, factor)
        image = widened(self.output(features))
        return F.pixel_shuffle(image, self.factors[-1]) if self.folded else image


class DeployableAttention(nn.Module):
    """The factors of a channel attention, on vectors, in float32 or wider.

    Args:
        plain: Attention as trained.
    """

    def __init__(self, plain: ChannelAttention) -> None:
        super().__init__()
        first, _, second, _ = plain.body
        self.first, self.second = linear_of(first), linear_of(second)

    def forward(self, features: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` times their factors."""
        means = widened(features).mean(dim=(2, 3))
        factors = torch.sigmoid(self.second(F.leaky_relu(self.first(means), DAN_SLOPE)))
        return features * as_map(factors).to(features.dtype)


class CodeTaps(nn.Module):
    """The biases that a code adds in the first convolution of every block, by one affine map.

    At the border some of the nine taps lie outside the image, so a bias is `[N,C,H,W]`.

    Args:
        convs: First convolutions of the blocks.
        channels: Number of channels of the features, which come before those of the code.
    """

    def __init__(self, convs: list[nn.Conv2d], channels: int) -> None:
        super().__init__()
        maps = [code_bias(conv, channels, 9) for conv in convs]
        weight, bias = (torch.cat(parts) for parts in zip(*maps, strict=True))
        self.widths = [conv.out_channels for conv in convs]
        self.affine = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.dtype)
        with torch.no_grad():
            self.affine.weight.copy_(weight)
            self.affine.bias.copy_(bias)

    def forward(self, code: Tensor, features: Tensor) -> Iterator[Tensor]:
        """Yield the biases of the blocks for codes `[N,code_size]` and the size of `features`."""
        stacked = self.affine(code)
        rows = taps_inside(features.shape[2], stacked)
        columns = taps_inside(features.shape[3], stacked).T
        parts = stacked.split([9 * width for width in self.widths], dim=1)
        for width, part in zip(self.widths, parts, strict=True):
            taps = part.reshape(-1, width, 3, 3)
            yield (rows @ (taps @ columns)).to(features.dtype)


class DeployableDan1Restorer(nn.Module):
    """DANv1's Restorer with the code as biases.

    Args:
        plain: Restorer as trained; some of its parameters are shared.
        scale: Scale factor.
    """

    def __init__(self, plain: Dan1Restorer, scale: int) -> None:
        super().__init__()
        blocks = [cast(Dan1Block, block) for block in plain.body]
        channels = plain.head.out_channels
        firsts = [cast(nn.Conv2d, block.body[0]) for block in blocks]
        self.head, self.fusion = plain.head, plain.fusion
        self.biases = CodeTaps(firsts, channels)
        self.first = nn.ModuleList(_of_inputs(conv, channels) for conv in firsts)
        self.second = nn.ModuleList(block.body[2] for block in blocks)
        self.attention = nn.ModuleList(
            DeployableAttention(cast(ChannelAttention, block.body[3])) for block in blocks
        )
        self.tail = DanTail(plain.upscale, scale)

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return sr `[N,3,sH,sW]`, not clamped, from lr `[N,3,H,W]` and code `[N,code_size]`."""
        features = self.head(lr.to(self.head.weight.dtype))
        parts = zip(
            self.first, self.second, self.attention, self.biases(code, features), strict=True
        )
        for first, second, attention, bias in parts:
            inner = F.leaky_relu(first(features) + bias, DAN_SLOPE)
            features = features + attention(second(inner))
        return cast(Tensor, self.tail(self.fusion(features)))


class DeployableDan1Estimator(nn.Module):
    """DANv1's Estimator with its means and attentions in float32.

    Args:
        plain: Estimator as trained; its convolutions are shared.
    """

    def __init__(self, plain: Dan1Estimator) -> None:
        super().__init__()
        blocks = [cast(Dan1Block, block) for block in plain.body]
        self.head_lr, self.head_hr, self.out = plain.head_LR, plain.head_HR, plain.out
        self.first = nn.ModuleList(block.body[0] for block in blocks)
        self.second = nn.ModuleList(block.body[2] for block in blocks)
        self.attention = nn.ModuleList(
            DeployableAttention(cast(ChannelAttention, block.body[3])) for block in blocks
        )

    def forward(self, sr: Tensor, lr: Tensor) -> Tensor:
        """Return codes `[N,code_size]` from sr `[N,3,sH,sW]` and lr `[N,3,H,W]`."""
        dtype = self.head_lr.weight.dtype
        features, condition = self.head_lr(lr.to(dtype)), self.head_hr(sr.to(dtype))
        for first, second, attention in zip(self.first, self.second, self.attention, strict=True):
            joined = torch.cat((features, condition), dim=1)
            inner = F.leaky_relu(first(joined), DAN_SLOPE)
            features = features + attention(second(inner))
        return widened(self.out(features)).mean(dim=(2, 3))


class CodeScales(nn.Module):
    """The scales that a code gives to the blocks of DANv2's Restorer, as vectors.

    Args:
        plain: Restorer as trained.
    """

    def __init__(self, plain: Dan2Restorer) -> None:
        super().__init__()
        self.head = linear_of(plain.head2)
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        self.per_group = [len(cast(Dan2Group, group).body) for group in plain.body]
        for block in _blocks(plain):
            self.first.append(linear_of(block.body2[0]))
            self.second.append(linear_of(block.body2[2]))

    def forward(self, code: Tensor) -> list[Tensor]:
        """Return the scales `[N,C,1,1]` of all blocks, for features that no group doubled."""
        vector, scales = self.head(code), []
        pairs = iter(zip(self.first, self.second, strict=True))
        for group, count in enumerate(self.per_group):
            for _ in range(count):
                first, second = next(pairs)
                scale = second(F.leaky_relu(first(vector), DAN_SLOPE))
                vector = vector + scale
                scales.append(as_map(scale / GROUP_GAIN**group))
            vector = GROUP_GAIN * vector
        return scales


class DeployableDan2Restorer(nn.Module):
    """DANv2's Restorer with the code as scales, and without doubling.

    Args:
        plain: Restorer as trained; some of its parameters are shared.
        scale: Scale factor.
    """

    def __init__(self, plain: Dan2Restorer, scale: int) -> None:
        super().__init__()
        self.head, self.scales = plain.head1, CodeScales(plain)
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        for index, group in enumerate(plain.body):
            for block in cast(Dan2Group, group).body:
                first, _, second = cast(Dan2Block, block).body1
                self.first.append(_times(cast(nn.Conv2d, first), GROUP_GAIN**index))
                self.second.append(second)
        self.fusion = _times(plain.fusion, GROUP_GAIN ** len(plain.body))
        self.tail = DanTail(plain.upscale, scale)

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return sr `[N,3,sH,sW]`, not clamped, from lr `[N,3,H,W]` and code `[N,code_size]`."""
        features = self.head(lr.to(self.head.weight.dtype))
        parts = zip(self.first, self.second, self.scales(code), strict=True)
        for first, second, scale in parts:
            inner = second(F.leaky_relu(first(features), DAN_SLOPE))
            features = features + inner * scale.to(features.dtype)
        return cast(Tensor, self.tail(self.fusion(features)))


class DeployableDan2Estimator(nn.Module):
    """DANv2's Estimator without doubling; from its mean on it is float32.

    Args:
        plain: Estimator as trained; some of its parameters are shared.
    """

    def __init__(self, plain: Dan2Estimator) -> None:
        super().__init__()
        self.head_lr, self.head_hr = plain.head_LR[0], plain.head_HR[0]
        blocks = [cast(Dan2Block, block) for block in plain.body.body]
        self.first = nn.ModuleList(block.body1 for block in blocks)
        self.second = nn.ModuleList(block.body2 for block in blocks)
        last, _, pixels, _ = plain.tail
        self.last = _times(cast(nn.Conv2d, last), GROUP_GAIN)
        self.pixels = linear_of(pixels)
        self.register_buffer("encoder", plain.encoder.clone())

    def forward(self, sr: Tensor, lr: Tensor) -> Tensor:
        """Return codes `[N,code_size]` from sr `[N,3,sH,sW]` and lr `[N,3,H,W]`."""
        dtype = cast(nn.Conv2d, self.head_lr).weight.dtype
        features, condition = self.head_lr(lr.to(dtype)), self.head_hr(sr.to(dtype))
        for first, second in zip(self.first, self.second, strict=True):
            scale = second(condition)
            features = features + first(features) * scale
            condition = condition + scale
        means = widened(self.last(features)).mean(dim=(2, 3))
        kernel = torch.softmax(self.pixels(means), dim=1)
        return kernel @ self.get_buffer("encoder")


def deployable_restorer(plain: Dan1Restorer | Dan2Restorer, scale: int) -> nn.Module:
    """Return the Restorer rewritten for export; its image is unclamped."""
    if isinstance(plain, Dan1Restorer):
        return DeployableDan1Restorer(plain, scale)
    return DeployableDan2Restorer(plain, scale)


def deployable_estimator(plain: Dan1Estimator | Dan2Estimator) -> nn.Module:
    """Return the Estimator rewritten for export."""
    if isinstance(plain, Dan1Estimator):
        return DeployableDan1Estimator(plain)
    return DeployableDan2Estimator(plain)


def linear_of(conv: nn.Module) -> nn.Linear:
    """Return the linear layer that equals a 1x1 convolution on vectors."""
    conv = cast(nn.Conv2d, conv)
    linear = nn.Linear(conv.in_channels, conv.out_channels).to(conv.weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(conv.weight[:, :, 0, 0])
        linear.bias.copy_(cast(Tensor, conv.bias))
    return linear


def _blocks(plain: Dan2Restorer) -> Iterator[Dan2Block]:
    for group in plain.body:
        for block in cast(Dan2Group, group).body:
            yield cast(Dan2Block, block)


def _of_inputs(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Return the part of a convolution, without bias, that reads the first `channels`."""
    part = nn.Conv2d(channels, conv.out_channels, 3, padding=1, bias=False)
    part = part.to(conv.weight.dtype)
    with torch.no_grad():
        part.weight.copy_(conv.weight[:, :channels])
    return part


def _times(conv: nn.Conv2d, factor: float) -> nn.Conv2d:
    """Return a convolution whose weights are multiplied, its bias unchanged."""
    scaled = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1).to(conv.weight.dtype)
    with torch.no_grad():
        scaled.weight.copy_(factor * conv.weight)
        cast(Tensor, scaled.bias).copy_(cast(Tensor, conv.bias))
    return scaled
