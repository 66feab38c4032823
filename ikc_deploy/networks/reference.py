"""Import of the published IKC checkpoints (four .pth files) into one checkpoint.

The three networks may lie in one file. `sft_branch.*`, which the reference registers and never
uses, is left out.
"""

from __future__ import annotations

import re
from os import fspath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ikc_deploy.errors import CheckpointError, KernelError
from ikc_deploy.kernels import SIGMA_RANGES, KernelBasis
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.checkpoints import empty_networks, load_tensors
from ikc_deploy.networks.foreign_checkpoints import (
    NetworkMarks,
    PathType,
    read_matrix,
    read_network,
)
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.tensors import refuse_unusable

_UNUSED = "sft_branch."
_SFTMD = NetworkMarks(("conv_mid.weight", "conv_output.weight", "upscale.0.weight", "conv1.weight"))
_CORRECTOR = NetworkMarks(("code_dense.0.weight", "global_dense.0.weight", "ConvNet.0.weight"))
_SIZES: dict[str, tuple[str, ...]] = {
    "sftmd": ("conv1.weight", "upscale.0.weight"),
    "predictor": ("ConvNet.0.weight",),
    "corrector": (),
}
"""Tensors by whose shapes the sizes of the networks are known."""
_PREDICTOR = NetworkMarks(
    ("ConvNet.0.weight", "ConvNet.2.weight", "ConvNet.4.weight"), foreign=_CORRECTOR.own[:2]
)


def import_reference(
    sftmd: PathType, predictor: PathType, corrector: PathType, pca: PathType
) -> IkcNetworks:
    """Return the networks in the published files; tensor shapes determine scale and sizes.

    Args:
        sftmd: File of the SR network F.
        predictor: File of the predictor P.
        corrector: File of the corrector C.
        pca: File of the matrix `[kernel pixels, code_size]` (or transposed): .pth, .safetensors,
            .npy or .npz.

    Returns:
        The networks as float32, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: A file is unreadable, or tensors are missing, unexpected, wrongly shaped,
            integer or not finite (all of them listed).
    """
    states = {
        "sftmd": _read_network(sftmd, _SFTMD),
        "predictor": _read_network(predictor, _PREDICTOR),
        "corrector": _read_network(corrector, _CORRECTOR),
    }
    matrix = _read_pca(pca)
    _check_kinds(states, [fspath(path) for path in (sftmd, predictor, corrector)])
    settings = _infer_architecture(states, int(matrix.shape[1]))
    basis = _read_basis(matrix, settings.sigma_range, pca)
    networks = empty_networks(settings, basis)
    tensors = {f"{name}.{key}": value for name, s in states.items() for key, value in s.items()}
    for key in ("normalize.mean", "normalize.deviation"):
        tensors[f"sftmd.{key}"] = networks.sftmd.state_dict()[key]
    files = "', '".join(fspath(path) for path in (sftmd, predictor, corrector))
    load_tensors(networks, tensors, files)
    networks.training = {"source": "imported reference checkpoint"}
    return networks.freeze()


def outputs(state: dict[str, Tensor], key: str) -> int:
    """Return the number of output channels of the layer whose weights are `key`.

    Raises:
        CheckpointError: The tensor is missing, or has the shape of no layer.
    """
    if key not in state:
        raise CheckpointError(f"the weights '{key}' are missing")
    shape = list(state[key].shape)
    if len(shape) < 2 or 0 in shape:
        raise CheckpointError(f"the weights '{key}' have the shape {shape}, which no layer has")
    return shape[0]


def unrounded_basis(matrix: Tensor, stored: torch.dtype) -> NDArray[np.float64]:
    """Return the orthonormal matrix nearest to one that was rounded to `stored`.

    Args:
        matrix: M `[pixels, code_size]`.
        stored: Type in which the file has it. Only types coarser than float32 are unrounded.

    Returns:
        A new matrix; the values of `matrix` if they are farther from it than rounding explains.
    """
    values = matrix.double().numpy()
    unit = torch.finfo(stored).eps
    if unit <= torch.finfo(torch.float32).eps or not np.isfinite(values).all():
        return values
    left, _, right = np.linalg.svd(values, full_matrices=False)
    nearest: NDArray[np.float64] = left @ right
    return nearest if np.abs(nearest - values).max() <= unit * np.abs(values).max() else values


def _read_network(path: PathType, marks: NetworkMarks) -> dict[str, Tensor]:
    tensors = read_network(path, marks)
    return {key: value for key, value in tensors.items() if not key.startswith(_UNUSED)}


def _read_basis(matrix: Tensor, sigma_range: tuple[float, float], path: PathType) -> KernelBasis:
    try:
        return KernelBasis.from_components(unrounded_basis(matrix, matrix.dtype), sigma_range)
    except KernelError as error:
        raise CheckpointError(
            f"'{fspath(path)}' does not hold the PCA matrix of a kernel basis: {error}"
        ) from error


def _read_pca(path: PathType) -> Tensor:
    matrix = read_matrix(path)
    refuse_unusable({"the PCA matrix": matrix}, fspath(path))
    return matrix if matrix.shape[0] > matrix.shape[1] else matrix.T


def _check_kinds(states: dict[str, dict[str, Tensor]], files: list[str]) -> None:
    """Raise `CheckpointError` if a file holds no network, another one, or one without sizes."""
    kinds = {"sftmd": _SFTMD, "predictor": _PREDICTOR, "corrector": _CORRECTOR}
    for (name, marks), file in zip(kinds.items(), files, strict=True):
        state = states[name]
        others = [key for key in marks.foreign if key in state]
        if others or sum(key in state for key in marks.own) < 2:
            found = ", ".join((others or sorted(state))[:3])
            raise CheckpointError(
                f"'{file}' is not the {name} of IKC, whose tensors are {', '.join(marks.own)} and "
                f"others: it holds {found or 'none'}"
            )
        missing = [key for key in _SIZES[name] if key not in state]
        if missing:
            raise CheckpointError(f"'{file}' lacks {', '.join(missing)} of the {name} of IKC")


def _infer_architecture(states: dict[str, dict[str, Tensor]], code_size: int) -> Architecture:
    sftmd, predictor = states["sftmd"], states["predictor"]
    channels = outputs(sftmd, "conv1.weight")
    expansion = outputs(sftmd, "upscale.0.weight") // channels
    # x4 has two x2 stages; x2 and x3 have one stage.
    scale = 4 if "upscale.3.weight" in sftmd else round(expansion**0.5)
    if scale not in SIGMA_RANGES:
        raise CheckpointError(f"invalid SFTMD scale {scale}: expected 2, 3 or 4")
    blocks = {m[1] for key in sftmd if (m := re.match(r"SFT-residual(\d+)\.", key))}
    return Architecture(
        name=f"reference-x{scale}",
        scale=scale,
        design="reference",
        channels=channels,
        blocks=max(len(blocks), 1),
        estimator_channels=outputs(predictor, "ConvNet.0.weight"),
        sigma_range=SIGMA_RANGES[scale],
        code_size=code_size,
    )
