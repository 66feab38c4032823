"""Import of the published FKP weights (FKP_x2.pt, ...) into a kernel flow of this project."""

from __future__ import annotations

import math
import re
from os import PathLike, fspath

import torch
from torch import Tensor

from ikc_deploy.errors import CheckpointError
from ikc_deploy.networks.flow import ALPHA, PEAKS, KernelFlow
from ikc_deploy.networks.foreign_checkpoints import NetworkMarks, read_network
from ikc_deploy.networks.tensors import fill

_CONSTANTS = ("kernel_size", "alpha", "normalization", "base_dist_mean", "base_dist_var")
_MARKS = NetworkMarks(_CONSTANTS)
_NAMES = {
    "s_net": "coupling.log_scale",
    "t_net": "coupling.shift",
    "log_gamma": "norm.log_gamma",
    "beta": "norm.beta",
    "running_mean": "norm.mean",
    "running_var": "norm.variance",
}
_MIN_SIZE = 1e-30
"""Smallest magnitude of a weight in use; weight decay left smaller values of unused weights."""


def import_flow(path: str | PathLike[str]) -> KernelFlow:
    """Return the flow in a published FKP checkpoint; its constants determine the scale.

    Args:
        path: FKP_x2.pt, FKP_x3.pt or FKP_x4.pt. Nothing in it is executed.

    Returns:
        The flow as float32, in evaluation mode, without gradients, on the CPU.

    Raises:
        CheckpointError: The file is unreadable; tensors are missing, unexpected, wrongly shaped,
            integer or not finite; or constants (kernel size, normalisation) differ from FKP's.
    """
    state = read_network(path, _MARKS)
    flow = KernelFlow(_scale(state, path))
    tensors = {}
    for key, value in state.items():
        if key in _CONSTANTS or key.endswith(".mask"):
            continue
        # In the tensor's own type, so that integers are still seen and refused.
        tensors[_our_name(key)] = torch.where(value.abs() < _MIN_SIZE, value.new_zeros(()), value)
    fill({"": flow}, tensors, f"'{fspath(path)}' is not an FKP checkpoint for x{flow.scale}")
    flow.clear_unused()
    return flow.eval().requires_grad_(False)


def _scale(state: dict[str, Tensor], path: str | PathLike[str]) -> int:
    if not set(_CONSTANTS) <= set(state):
        raise CheckpointError(
            f"'{fspath(path)}' is not an FKP checkpoint; pass FKP_x2.pt or similar"
        )
    constants = [state[key].flatten() for key in ("kernel_size", "alpha", "normalization")]
    if any(constant.numel() != 1 for constant in constants):
        raise CheckpointError(
            f"'{fspath(path)}' is not an FKP checkpoint: its constants are not single numbers"
        )
    size, *values = (float(constant) for constant in constants)
    found = [scale for scale in PEAKS if KernelFlow(scale).size == size]
    if not found:
        raise CheckpointError(
            f"'{fspath(path)}' is for kernels of {size:g} pixels; x2, x3 and x4 have 11, 15 and 19"
        )
    ours = [ALPHA, PEAKS[found[0]]]
    if not all(
        math.isclose(
            value, own, rel_tol=max(1e-4, unit.eps), abs_tol=unit.smallest_normal * unit.eps
        )
        for value, own, unit in zip(values, ours, map(_unit, constants[1:]), strict=True)
    ):
        raise CheckpointError(
            f"'{fspath(path)}' normalises kernels by {values}, but this project by {ours}; it "
            "cannot be imported"
        )
    return found[0]


def _unit(constant: Tensor) -> torch.finfo:
    """Return the rounding of the type in which a number is stored."""
    return torch.finfo(constant.dtype if constant.is_floating_point() else torch.float64)


def _our_name(key: str) -> str:
    """Rename net.2.s_net.0.weight to blocks.1.coupling.log_scale.0.weight; keep other names."""
    match = re.fullmatch(r"net\.(\d+)\.(\w+)(\..+)?", key)
    if match is None or match[2] not in _NAMES:
        return key
    return f"blocks.{int(match[1]) // 2}.{_NAMES[match[2]]}{match[3] or ''}"
