"""The formulas of both versions of DAN on a state dict, in float64, without the modules."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def published(
    state: State, lr: Tensor, scale: int, loops: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The images and the codes that follow from them, of every loop."""
    state = {key: value.double() for key, value in state.items()}
    second = "Restorer.head2.weight" in state
    restore, estimate = (restore2, estimate2) if second else (restore1, estimate1)
    code = state["init_ker_map"].expand(len(lr), -1)
    srs, codes = [], []
    for _ in range(loops):
        sr = restore(state, lr.double(), code, scale)
        code = estimate(state, sr, lr.double(), scale)
        srs.append(sr)
        codes.append(code)
    return srs, codes


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], stride, weight.shape[-1] // 2)


def pair(state: State, name: str, x: Tensor) -> Tensor:
    return conv(state, f"{name}.2", F.leaky_relu(conv(state, f"{name}.0", x), 0.2))


def count(state: State, pattern: str) -> int:
    return 1 + max(int(m[1]) for key in state if (m := re.match(pattern, key)))


def upscaled(state: State, x: Tensor, scale: int) -> Tensor:
    x = conv(state, "Restorer.fusion", x)
    for index, factor in enumerate((2, 2) if scale == 4 else (scale,)):
        x = F.pixel_shuffle(conv(state, f"Restorer.upscale.{2 * index}", x), factor)
    return conv(state, "Restorer.upscale.4" if scale == 4 else "Restorer.upscale.2", x)


def block1(state: State, name: str, x: Tensor, condition: Tensor) -> Tensor:
    y = pair(state, f"{name}.body", torch.cat((x, condition), 1))
    means = F.adaptive_avg_pool2d(y, 1)
    return x + y * torch.sigmoid(pair(state, f"{name}.body.3.body", means))


def restore1(state: State, lr: Tensor, code: Tensor, scale: int) -> Tensor:
    planes = torch.ones_like(lr[:, :1]) * code[:, :, None, None]
    x = conv(state, "Restorer.head", lr)
    for index in range(count(state, r"Restorer\.body\.(\d+)\.")):
        x = block1(state, f"Restorer.body.{index}", x, planes)
    return upscaled(state, x, scale)


def estimate1(state: State, sr: Tensor, lr: Tensor, scale: int) -> Tensor:
    x, condition = conv(state, "Estimator.head_LR", lr), conv(state, "Estimator.head_HR", sr, scale)
    for index in range(count(state, r"Estimator\.body\.(\d+)\.")):
        x = block1(state, f"Estimator.body.{index}", x, condition)
    return conv(state, "Estimator.out", x).mean((2, 3))


def group2(state: State, name: str, both: list[Tensor]) -> list[Tensor]:
    """One group on its two branches, changed in place as published."""
    changed = both
    for index in range(count(state, rf"{re.escape(name)}\.body\.(\d+)\.")):
        scale = pair(state, f"{name}.body.{index}.body2", changed[1])
        changed[0] = changed[0] + pair(state, f"{name}.body.{index}.body1", changed[0]) * scale
        changed[1] = changed[1] + scale
    changed[0] = both[0] + changed[0]
    changed[1] = both[1] + changed[1]
    return changed


def restore2(state: State, lr: Tensor, code: Tensor, scale: int) -> Tensor:
    both = [
        conv(state, "Restorer.head1", lr),
        conv(state, "Restorer.head2", code[:, :, None, None]),
    ]
    for index in range(count(state, r"Restorer\.body\.(\d+)\.")):
        both = group2(state, f"Restorer.body.{index}", both)
    return upscaled(state, both[0], scale)


def estimate2(state: State, sr: Tensor, lr: Tensor, scale: int) -> Tensor:
    both = [
        conv(state, "Estimator.head_LR.0", lr),
        conv(state, "Estimator.head_HR.0", sr, scale),
    ]
    x = group2(state, "Estimator.body", both)[0]
    pooled = conv(state, "Estimator.tail.0", x).mean((2, 3), keepdim=True)
    kernel = torch.softmax(conv(state, "Estimator.tail.2", pooled).flatten(1), 1)
    return kernel @ state["encoder"][0]
