"""Exact rewrites of DAN's networks; see `rewrites` for those of IKC, which also explains the terms.

- DANv1, code as bias: the first convolution of a block gets a bias instead of more channels.
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

from ikc_deploy.export.rewrite_layers import (
    CodeBiases,
    ShuffleTail,
    bias_of,
    convolution,
    linear_of,
)
from ikc_deploy.networks.dan import (
    DAN_SLOPE,
    GROUP_GAIN,
    ChannelAttention,
    Dan1Block,
    Dan1Estimator,
    Dan1Restorer,
    Dan2Block,
    Dan2Estimator,
    Dan2Group,
    Dan2Restorer,
    as_map,
)
from ikc_deploy.networks.layers import widened


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


class DeployableDan1Restorer(nn.Module):
    """DANv1's Restorer with the code as biases.

    Args:
        plain: Restorer as trained; some of its parameters are shared.
    """

    def __init__(self, plain: Dan1Restorer) -> None:
        super().__init__()
        blocks = [cast(Dan1Block, block) for block in plain.body]
        channels = plain.head.out_channels
        firsts = [cast(nn.Conv2d, block.body[0]) for block in blocks]
        self.head, self.fusion = plain.head, plain.fusion
        self.biases = CodeBiases([[conv] for conv in firsts], channels, border="zero")
        self.first = nn.ModuleList(convolution(conv.weight[:, :channels]) for conv in firsts)
        self.second = nn.ModuleList(block.body[2] for block in blocks)
        self.attention = nn.ModuleList(
            DeployableAttention(cast(ChannelAttention, block.body[3])) for block in blocks
        )
        self.tail = ShuffleTail([*plain.upscale])

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return sr `[N,3,sH,sW]`, not clamped, from lr `[N,3,H,W]` and code `[N,code_size]`."""
        features = self.head(lr.to(self.head.weight.dtype))
        parts = zip(
            self.first, self.second, self.attention, self.biases(code, features), strict=True
        )
        for first, second, attention, bias in parts:
            inner = F.leaky_relu(first(features) + bias, DAN_SLOPE)
            features = features + attention(second(inner))
        return cast(Tensor, self.tail(self.fusion(features), lr))


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
    """

    def __init__(self, plain: Dan2Restorer) -> None:
        super().__init__()
        self.head, self.scales = plain.head1, CodeScales(plain)
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        for index, group in enumerate(plain.body):
            for block in cast(Dan2Group, group).body:
                first, _, second = cast(Dan2Block, block).body1
                self.first.append(_times(first, GROUP_GAIN**index))
                self.second.append(second)
        self.fusion = _times(plain.fusion, GROUP_GAIN ** len(plain.body))
        self.tail = ShuffleTail([*plain.upscale])

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return sr `[N,3,sH,sW]`, not clamped, from lr `[N,3,H,W]` and code `[N,code_size]`."""
        features = self.head(lr.to(self.head.weight.dtype))
        parts = zip(self.first, self.second, self.scales(code), strict=True)
        for first, second, scale in parts:
            inner = second(F.leaky_relu(first(features), DAN_SLOPE))
            features = features + inner * scale.to(features.dtype)
        return cast(Tensor, self.tail(self.fusion(features), lr))


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
        self.last = _times(last, GROUP_GAIN)
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


def _blocks(plain: Dan2Restorer) -> Iterator[Dan2Block]:
    for group in plain.body:
        for block in cast(Dan2Group, group).body:
            yield cast(Dan2Block, block)


def _times(layer: nn.Module, factor: float) -> nn.Conv2d:
    """Return a convolution whose weights are multiplied, its bias unchanged."""
    conv = cast(nn.Conv2d, layer)
    return convolution(factor * conv.weight, bias_of(conv))
