"""Exact rewrites: networks with the same function and fewer, larger, more efficient operations.

`deployable_*` take a plain network and return a module for export. No rewrite is an approximation:
tests compare each one with the plain network in float64, borders included.

- Code as bias: the code map is constant in space, so a convolution of it is a bias (with a zero
  border, the sum over the taps that lie inside the image).
- All codes at once: the biases of all SFT layers are affine in one code, so one product computes
  them.
- Gamma and beta half together: both read the same features, so one convolution computes the hidden
  channels of both. After it they are separate: to split a result of twice the channels would leave
  the blocked layout of ONNX Runtime (docs/adr/0013).
- LeakyReLU before PixelShuffle: one acts per value, the other moves values.
- The output convolution through PixelShuffle(2): a convolution after the rearrangement is one of
  four times the channels before it.
- The corrector's code branch as bias: a 1x1 convolution of joined maps is a sum, one part constant.
- The mean before the last 1x1 convolution: both are linear.
- The FiLM trunk's scales and shifts at once: all are affine in one embedding, so one product
  computes them; a convolution's bias becomes part of its shift, and the normalisation of the code
  part of the first layer of the embedding.

Modules follow the dtype of their convolutions: `precision.to_half` converts those to float16, while
codes, means and statistics stay float32.
"""

from __future__ import annotations

from copy import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ikc_deploy.networks.corrector import Corrector, ReferenceCorrector
from ikc_deploy.networks.film import FilmBlock, FilmConv, FilmTrunk
from ikc_deploy.networks.layers import widened
from ikc_deploy.networks.predictor import Predictor, ReferencePredictor
from ikc_deploy.networks.sftmd import SLOPE, BicubicPhases, SftLayer, Sftmd
from ikc_deploy.networks.sr_network import SrNetwork


class DeployableSft(nn.Module):
    """An SFT layer whose code enters as a bias from outside; gamma's hidden channels come first.

    Args:
        plain: Layer as trained; some of its parameters are shared.
    """

    def __init__(self, plain: SftLayer) -> None:
        super().__init__()
        channels, hidden = plain.mul_conv2.out_channels, plain.mul_conv1.out_channels
        dtype = plain.mul_conv1.weight.dtype
        self.first = nn.Conv2d(channels, 2 * hidden, 3, padding=1, bias=False, dtype=dtype)
        self.gamma, self.beta = plain.mul_conv2, plain.add_conv2
        with torch.no_grad():
            inner = [conv.weight[:, :channels] for conv in (plain.mul_conv1, plain.add_conv1)]
            self.first.weight.copy_(torch.cat(inner))

    def forward(self, features: Tensor, bias: Tensor) -> Tensor:
        """Return features `[N,C,H,W]` from features `[N,C,H,W]` and a bias of `CodeBiases`."""
        gamma, beta = F.leaky_relu(self.first(features) + bias, SLOPE).chunk(2, dim=1)
        return features * torch.sigmoid(self.gamma(gamma)) + self.beta(beta)


class CodeBiases(nn.Module):
    """The biases that a code adds in every SFT layer, by one affine map.

    With border "replicate" a bias is `[N,C,1,1]`. With "zero" it is `[N,C,H,W]`: at the border some
    of the nine taps lie outside, so B[y,x] = sum_ij R[y,i] A[i,j] Q[x,j], where A holds the biases
    of the taps, and R, Q indicate the rows and columns of taps inside.

    Args:
        plain: Network as trained.
        layers: All of its SFT layers, in the order of their use.
    """

    def __init__(self, plain: Sftmd, layers: list[SftLayer]) -> None:
        super().__init__()
        branches = [conv for layer in layers for conv in (layer.mul_conv1, layer.add_conv1)]
        self.border = layers[0].border
        self.width = 2 * branches[0].out_channels
        self.taps = 9 if self.border == "zero" else 1
        channels = plain.settings.channels
        affine = [code_bias(conv, channels, self.taps) for conv in branches]
        weight, bias = (torch.cat(parts) for parts in zip(*affine, strict=True))
        dtype = plain.conv1.weight.dtype
        mean = plain.normalize.get_buffer("mean").to(dtype)
        deviation = plain.normalize.get_buffer("deviation").to(dtype)
        scaled = weight / deviation
        self.affine = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
        with torch.no_grad():
            self.affine.weight.copy_(scaled)
            self.affine.bias.copy_(bias - scaled @ mean)

    def forward(self, code: Tensor, features: Tensor) -> list[Tensor]:
        """Return the biases of all layers for codes `[N,code_size]` and the size of `features`."""
        stacked = self.affine(code)
        parts = stacked.split(self.width * self.taps, dim=1)
        if self.border == "replicate":
            return [part[:, :, None, None].to(features.dtype) for part in parts]
        rows = taps_inside(features.shape[2], stacked)
        columns = taps_inside(features.shape[3], stacked).T
        taps = [part.reshape(-1, self.width, 3, 3) for part in parts]
        return [(rows @ (each @ columns)).to(features.dtype) for each in taps]


class DeployableSftmd(nn.Module):
    """SFTMD rewritten: same inputs as `Sftmd`; the image is unclamped and at least float32.

    Args:
        plain: Network as trained; some of its parameters are shared.
    """

    def __init__(self, plain: Sftmd) -> None:
        super().__init__()
        layers = [sft for block in plain.residual_blocks for sft in (block.sft1, block.sft2)]
        layers.append(plain.sft)
        self.biases = CodeBiases(plain, layers)
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
            self.tail = ReferenceTail(cast(nn.Sequential, plain.upscale), plain.conv_output)

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        """Return sr `[N,3,s*H,s*W]`, not clamped, from lr `[N,3,H,W]` and code `[N,code_size]`."""
        lr = lr.to(self.conv1.weight.dtype)
        before = F.leaky_relu(self.conv1(lr), SLOPE)
        before = self.conv3(F.leaky_relu(self.conv2(before), SLOPE))
        biases = self.biases(code, before)
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
        dtype = plain.conv_first.weight.dtype
        first, relu, second, _ = plain.embed
        first, second = cast(nn.Linear, first), cast(nn.Linear, second)
        mean = plain.normalize.get_buffer("mean").to(dtype)
        deviation = plain.normalize.get_buffer("deviation").to(dtype)
        normalized = nn.Linear(first.in_features, first.out_features, dtype=dtype)
        outputs = 2 * sum(layer.conv.out_channels for layer in convs)
        self.affine = nn.Linear(second.out_features, outputs, dtype=dtype)
        self.embed = nn.Sequential(normalized, relu, second, nn.ReLU())
        # All have the same width, so scales and shifts can be cut out of one stack.
        scale_weight, shift_weight = _stacked([layer.modulation.weight for layer in convs])
        scale_bias, shift_bias = _stacked([layer.modulation.bias for layer in convs])
        scale_bias = 1 + scale_bias
        with torch.no_grad():
            normalized.weight.copy_(first.weight / deviation)
            normalized.bias.copy_(first.bias - normalized.weight @ mean)
            biases = torch.cat([_bias(layer.conv) for layer in convs])
            self.affine.weight.copy_(
                torch.cat((scale_weight, shift_weight + biases[:, None] * scale_weight))
            )
            self.affine.bias.copy_(torch.cat((scale_bias, shift_bias + biases * scale_bias)))
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


class ReferenceTail(nn.Module):
    """PixelShuffle stages, activations first; the output convolution folded through a last x2.

    Args:
        upscale: Convolutions, PixelShuffles and activations, in turn.
        output: Convolution from features to RGB.
    """

    def __init__(self, upscale: nn.Sequential, output: nn.Conv2d) -> None:
        super().__init__()
        self.convs = nn.ModuleList(layer for layer in upscale if isinstance(layer, nn.Conv2d))
        shuffles = [layer for layer in upscale if isinstance(layer, nn.PixelShuffle)]
        self.factors = [shuffle.upscale_factor for shuffle in shuffles]
        # With a factor of 3 the folded kernel would have 2.8 times the products, most with zero.
        self.folded = self.factors[-1] == 2
        self.output = fold_through_shuffle(output, 2) if self.folded else output

    def forward(self, features: Tensor, lr: Tensor) -> Tensor:  # noqa: ARG002 - as CompactTail
        """Return the image `[N,3,s*H,s*W]`, not clamped, from features `[N,C,H,W]`."""
        last = len(self.factors) - 1
        for index, factor in enumerate(self.factors):
            features = F.leaky_relu(self.convs[index](features), SLOPE)
            if index < last or not self.folded:
                features = F.pixel_shuffle(features, factor)
        image = widened(self.output(features))
        return F.pixel_shuffle(image, self.factors[-1]) if self.folded else image


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
        dtype = joined.weight.dtype
        self.features = plain.ConvNet
        self.code_dense = plain.code_dense
        self.joined = nn.Conv2d(width, joined.out_channels, 1, bias=False, dtype=dtype)
        self.code_bias = nn.Linear(width, joined.out_channels, dtype=dtype)
        self.middle = middle
        self.last = nn.Linear(last.in_channels, last.out_channels, dtype=dtype)
        with torch.no_grad():
            self.joined.weight.copy_(joined.weight[:, :width])
            self.code_bias.weight.copy_(joined.weight[:, width:, 0, 0])
            self.code_bias.bias.copy_(_bias(joined))
            self.last.weight.copy_(last.weight[:, :, 0, 0])
            self.last.bias.copy_(_bias(last))

    def forward(self, sr: Tensor, code: Tensor) -> Tensor:
        """Return the next code from sr `[N,3,sH,sW]` in [0,1] and the code `[N,code_size]`."""
        features = self.features(sr.to(_dtype(self.features)))
        bias = self.code_bias(self.code_dense(code))[:, :, None, None].to(features.dtype)
        features = F.leaky_relu(self.joined(features) + bias, SLOPE)
        features = F.leaky_relu(self.middle(features), SLOPE)
        return code + cast(Tensor, self.last(widened(features).mean(dim=(2, 3))))


def deployable_sftmd(plain: SrNetwork) -> nn.Module:
    """Return F rewritten for export; its image is unclamped. The weights may be shared."""
    return DeployableFilmTrunk(plain) if isinstance(plain, FilmTrunk) else DeployableSftmd(plain)


def deployable_predictor(plain: Predictor) -> nn.Module:
    """Return P rewritten for export; the statistics predictor is returned unchanged."""
    return DeployableReferencePredictor(plain) if isinstance(plain, ReferencePredictor) else plain


def deployable_corrector(plain: Corrector) -> nn.Module:
    """Return C rewritten for export; the statistics corrector is returned unchanged."""
    return DeployableReferenceCorrector(plain) if isinstance(plain, ReferenceCorrector) else plain


def code_bias(conv: nn.Conv2d, channels: int, taps: int) -> tuple[Tensor, Tensor]:
    """Return weight `[width*taps,code_size]` and bias of the map from code to a convolution's bias.

    The convolution's own bias is added to the centre tap, which always lies inside the image.
    """
    weight = conv.weight.detach()[:, channels:].permute(0, 2, 3, 1)
    bias = weight.new_zeros(weight.shape[:3])
    bias[:, 1, 1] = _bias(conv).detach()
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
        _bias(folded).copy_(_bias(conv).repeat_interleave(factor**2))
    return folded


def _stacked(parameters: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the first halves of `[2C,...]` parameters in one tensor, and the second halves."""
    first, second = torch.stack([each.detach() for each in parameters]).chunk(2, dim=1)
    return first.flatten(0, 1), second.flatten(0, 1)


def _without_bias(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the same convolution without its bias; the weight is shared."""
    bare = copy(conv)
    bare._parameters = {**conv._parameters, "bias": None}
    return bare


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise ValueError("a convolution has no bias, which this rewrite needs")
    return layer.bias


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
