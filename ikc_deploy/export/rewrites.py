"""Exact rewrites of IKC's networks for export: the same function with fewer, larger operations.

Each class is constructed from a trained network; `deployable` selects the class. No rewrite is an
approximation: tests compare each one with the original network in float64, including borders.

- Code as bias: the code map is constant in space, so its convolution is a bias (with zero padding,
  the sum over the taps inside the image).
- All codes at once: the biases of all SFT layers are affine in the code, so one matrix product
  computes all of them.
- Gamma and beta partly merged: both read the same features, so one convolution computes the hidden
  channels of both. The following convolutions stay separate: splitting a result with twice the
  channels would leave the blocked memory layout of ONNX Runtime (docs/adr/0013).
- LeakyReLU before PixelShuffle: the two commute.
- Output convolution before PixelShuffle(2): it becomes a convolution with four times the channels.
- The corrector's code branch as bias: a 1x1 convolution of concatenated maps is a sum, of which one
  term is constant.
- The mean before the last 1x1 convolution: both are linear.
- All scales and shifts of the FiLM trunk at once: they are affine in the embedding, so one matrix
  product computes them. Biases of convolutions are folded into the shifts, and the normalisation of
  the code into the first layer of the embedding.

Modules compute in the dtype of their convolutions, which `precision.to_half` converts to float16;
codes, means and statistics stay float32.
"""

from __future__ import annotations

from copy import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.export.rewrite_layers import (
    CodeBiases,
    ShuffleTail,
    bias_of,
    convolution,
    linear,
    linear_of,
    normalized_map,
)
from ikc_deploy.networks.corrector import ReferenceCorrector
from ikc_deploy.networks.film import FilmBlock, FilmConv, FilmTrunk
from ikc_deploy.networks.layers import widened
from ikc_deploy.networks.predictor import ReferencePredictor
from ikc_deploy.networks.sftmd import SLOPE, BicubicPhases, SftLayer, Sftmd


class DeployableSft(nn.Module):
    """An SFT layer whose code enters as a bias from outside; gamma's hidden channels come first.

    Args:
        plain: Layer as trained; some of its parameters are shared.
    """

    def __init__(self, plain: SftLayer) -> None:
        super().__init__()
        channels = plain.mul_conv2.out_channels
        inner = [conv.weight[:, :channels] for conv in (plain.mul_conv1, plain.add_conv1)]
        self.first = convolution(torch.cat(inner))
        self.gamma, self.beta = plain.mul_conv2, plain.add_conv2

    def forward(self, features: Tensor, bias: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` from features `[N,C,H,W]` and a bias of `CodeBiases`."""
        gamma, beta = F.leaky_relu(self.first(features) + bias, SLOPE).chunk(2, dim=1)
        return features * torch.sigmoid(self.gamma(gamma)) + self.beta(beta)


class DeployableSftmd(nn.Module):
    """SFTMD rewritten: same inputs as `Sftmd`; the image is unclamped and at least float32.

    Args:
        plain: Network as trained; some of its parameters are shared.
    """

    def __init__(self, plain: Sftmd) -> None:
        super().__init__()
        layers = [sft for block in plain.residual_blocks for sft in (block.sft1, block.sft2)]
        layers.append(plain.sft)
        self.biases = CodeBiases(
            [[layer.mul_conv1, layer.add_conv1] for layer in layers],
            plain.settings.channels,
            border=layers[0].border,
            normalize=plain.normalize,
        )
        self.sft = nn.ModuleList(DeployableSft(layer) for layer in layers)
        self.conv1, self.conv2, self.conv3 = plain.conv1, plain.conv2, plain.conv3
        self.block_convs = nn.ModuleList(
            conv for block in plain.residual_blocks for conv in (block.conv1, block.conv2)
        )
        self.conv_mid = plain.conv_mid
        self.tail: nn.Module
        if plain.settings.design == "compact":
            self.tail = CompactTail(plain.conv_output, plain.bicubic, plain.settings.scale)
        else:
            upscale = cast(nn.Sequential, plain.upscale)
            self.tail = ShuffleTail([*upscale, plain.conv_output], SLOPE)

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return sr `[N,3,s*H,s*W]`, not clamped, from lr `[N,3,H,W]` and code `[N,code_size]`."""
        lr = lr.to(self.conv1.weight.dtype)
        before = F.leaky_relu(self.conv1(lr), SLOPE)
        before = self.conv3(F.leaky_relu(self.conv2(before), SLOPE))
        biases = list(self.biases(code, before))
        features = before
        for index in range(0, len(self.block_convs), 2):
            branch = F.relu(self.sft[index](features, biases[index]))
            branch = self.block_convs[index](branch)
            branch = F.relu(self.sft[index + 1](branch, biases[index + 1]))
            features = features + self.block_convs[index + 1](branch)
        features = self.sft[-1](features + before, biases[-1])
        return cast(Tensor, self.tail(self.conv_mid(features), lr))


class FilmModulations(nn.Module):
    """Scale and shift `[N,C,1,1]` of every modulated convolution, by one affine map of a code.

    (1 + g) (W x + c) + b = s (W x) + (c s + b) with s = 1 + g: the bias c moves into the shift.

    Args:
        plain: Trunk as trained.
        convs: All of its modulated convolutions, in the order of their use.
    """

    def __init__(self, plain: FilmTrunk, convs: list[FilmConv]) -> None:
        super().__init__()
        first, relu, second, _ = plain.embed
        first, second = cast(nn.Linear, first), cast(nn.Linear, second)
        # All have the same width, so scales and shifts can be cut out of one stack.
        scale_weight, shift_weight = _stacked([layer.modulation.weight for layer in convs])
        scale_bias, shift_bias = _stacked([layer.modulation.bias for layer in convs])
        scale_bias = 1 + scale_bias
        biases = torch.cat([bias_of(layer.conv) for layer in convs])
        self.affine = linear(
            torch.cat((scale_weight, shift_weight + biases[:, None] * scale_weight)),
            torch.cat((scale_bias, shift_bias + biases * scale_bias)),
        )
        normalized = linear(*normalized_map(first.weight, first.bias, plain.normalize))
        self.embed = nn.Sequential(normalized, relu, second, nn.ReLU())
        self.widths = [layer.conv.out_channels for layer in convs]

    def forward(self, code: Tensor, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Return scale and shift of every convolution for codes `[N,code_size]`, in `dtype`."""
        maps = self.affine(self.embed(code))[:, :, None, None].to(dtype)
        scales, shifts = maps.chunk(2, dim=1)
        return list(
            zip(scales.split(self.widths, dim=1), shifts.split(self.widths, dim=1), strict=True)
        )


class DeployableFilmTrunk(nn.Module):
    """The FiLM trunk rewritten: same inputs; the image is unclamped and at least float32.

    Args:
        plain: Trunk as trained; some of its parameters are shared.
    """

    def __init__(self, plain: FilmTrunk) -> None:
        super().__init__()
        blocks = [cast(FilmBlock, block) for block in plain.blocks]
        layers = [layer for block in blocks for layer in (block.first, block.second)]
        self.modulations = FilmModulations(plain, layers)
        self.convs = nn.ModuleList(_without_bias(layer.conv) for layer in layers)
        self.conv_first, self.conv_mid = plain.conv_first, plain.conv_mid
        self.tail = CompactTail(plain.conv_output, plain.bicubic, plain.settings.scale)

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return sr `[N,3,s*H,s*W]`, not clamped, from lr `[N,3,H,W]` and code `[N,code_size]`."""
        lr = lr.to(self.conv_first.weight.dtype)
        before = features = self.conv_first(lr)
        modulations = self.modulations(code, lr.dtype)
        for index in range(0, len(self.convs), 2):
            (scale, shift), (scale2, shift2) = modulations[index : index + 2]
            branch = F.relu(self.convs[index](features) * scale + shift)
            features = features + (self.convs[index + 1](branch) * scale2 + shift2)
        return cast(Tensor, self.tail(before + self.conv_mid(features), lr))


class CompactTail(nn.Module):
    """Phases of the residual and of the bicubic image, summed in float32, then arranged.

    Args:
        output: Convolution from features to the phases of the residual.
        bicubic: Bicubic upscaling to phases.
        scale: Scale factor s.
    """

    def __init__(self, output: nn.Conv2d, bicubic: BicubicPhases, scale: int) -> None:
        super().__init__()
        self.output, self.bicubic, self.scale = output, bicubic, scale

    def forward(self, features: Tensor, lr: Tensor) -> Tensor:
        """Return the image `[N,3,s*H,s*W]`, not clamped, from features and lr `[N,3,H,W]`."""
        phases = widened(self.output(features)) + widened(self.bicubic(lr))
        return F.pixel_shuffle(phases, self.scale)


class DeployableReferencePredictor(nn.Module):
    """Reference P with its mean in float32.

    Args:
        plain: Predictor as trained; its convolutions are shared.
    """

    def __init__(self, plain: ReferencePredictor) -> None:
        super().__init__()
        self.features = plain.ConvNet

    def forward(self, lr: Tensor) -> Tensor:
        """Return the code `[N,code_size]` of lr `[N,3,H,W]` in [0,1]."""
        features = self.features(lr.to(_dtype(self.features)))
        return widened(features).mean(dim=(2, 3))


class DeployableReferenceCorrector(nn.Module):
    """Reference C with its code branch as a bias, and the mean before the last 1x1 convolution.

    Args:
        plain: Corrector as trained; some of its parameters are shared.
    """

    def __init__(self, plain: ReferenceCorrector) -> None:
        super().__init__()
        joined, _, middle, _, last = plain.global_dense
        joined, last = cast(nn.Conv2d, joined), cast(nn.Conv2d, last)
        width = joined.in_channels // 2
        self.features = plain.ConvNet
        self.code_dense = plain.code_dense
        self.joined = convolution(joined.weight[:, :width])
        self.code_bias = linear(joined.weight[:, width:, 0, 0], bias_of(joined))
        self.middle = middle
        self.last = linear_of(last)

    def forward(self, sr: Tensor, code: Tensor) -> Tensor:
        """Return the next code from sr `[N,3,sH,sW]` in [0,1] and the code `[N,code_size]`."""
        features = self.features(sr.to(_dtype(self.features)))
        bias = self.code_bias(self.code_dense(code))[:, :, None, None].to(features.dtype)
        features = F.leaky_relu(self.joined(features) + bias, SLOPE)
        features = F.leaky_relu(self.middle(features), SLOPE)
        return code + cast(Tensor, self.last(widened(features).mean(dim=(2, 3))))


def _stacked(parameters: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the first halves of `[2C,...]` parameters in one tensor, and the second halves."""
    first, second = torch.stack([each.detach() for each in parameters]).chunk(2, dim=1)
    return first.flatten(0, 1), second.flatten(0, 1)


def _without_bias(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the same convolution without its bias; the weight is shared."""
    bare = copy(conv)
    bare._parameters = {**conv._parameters, "bias": None}
    return bare


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
