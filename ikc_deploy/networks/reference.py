"""Import of the published IKC checkpoints (four .pth files) into one checkpoint.

What is tolerated: `module.` prefixes of DataParallel, a state dict wrapped under a common name,
and `sft_branch.*`, which the reference registers and never uses. `.pth` files are
read with `weights_only=True` alone, so nothing in them is ever executed.
"""

from __future__ import annotations

import pickle
import re
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from ikc_deploy.errors import CheckpointError
from ikc_deploy.kernels import SIGMA_RANGES, KernelBasis
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.checkpoints import IkcNetworks, empty_networks, load_tensors
from ikc_deploy.networks.tensors import refuse_unusable

PathType = str | PathLike[str]

_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model", "params", "net")
_UNUSED = "sft_branch."


def import_reference(
    sftmd: PathType, predictor: PathType, corrector: PathType, pca: PathType
) -> IkcNetworks:
    """Networks from the reference's files; scale and sizes are read off the tensor shapes.

    `pca` holds the matrix `[kernel pixels, code_size]` (or transposed). Raises `CheckpointError`
    for unreadable files and for missing, unexpected or wrongly shaped tensors and those that are
    integer or not finite, all in one list.
    """
    states = {
        "sftmd": read_state_dict(sftmd),
        "predictor": read_state_dict(predictor),
        "corrector": read_state_dict(corrector),
    }
    matrix = _read_pca(pca)
    settings = _infer_architecture(states, int(matrix.shape[1]))
    basis = KernelBasis.from_components(matrix.double().numpy(), settings.sigma_range)
    networks = empty_networks(settings, basis)
    tensors = {f"{name}.{key}": value for name, s in states.items() for key, value in s.items()}
    for key in ("normalize.mean", "normalize.deviation"):
        tensors[f"sftmd.{key}"] = networks.sftmd.state_dict()[key]
    files = ", ".join(f"'{fspath(path)}'" for path in (sftmd, predictor, corrector))
    load_tensors(networks, tensors, files)
    networks.training = {"source": "imported reference checkpoint"}
    return networks.eval()


def read_state_dict(path: PathType) -> dict[str, Tensor]:
    """The tensors of a .pth file, with wrappers, `module.` and unused branches removed."""
    content = _read_pth(path)
    if isinstance(content, dict):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointError(f"'{fspath(path)}' holds no state dict of named tensors")
    names = {key: key.removeprefix("module.") for key in content}
    return {
        names[key]: value for key, value in content.items() if not names[key].startswith(_UNUSED)
    }


def outputs(state: dict[str, Tensor], key: str) -> int:
    """Output channels of the layer whose weights are `key`: the first side of the tensor.

    Raises `CheckpointError` if there is no such tensor, or it is no layer's.
    """
    if key not in state:
        raise CheckpointError(f"the weights '{key}' are missing")
    shape = list(state[key].shape)
    if len(shape) < 2 or 0 in shape:
        raise CheckpointError(f"the weights '{key}' are no layer's: their shape is {shape}")
    return shape[0]


def _read_pth(path: PathType) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file at '{fspath(path)}'") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"'{fspath(path)}' is damaged or holds more than tensors, and only tensors are read "
            "(weights_only=True). Save its state_dict() alone and import that"
        ) from error
    except Exception as error:
        # torch.load raises a dozen types for bytes that are no file of its own.
        raise CheckpointError(f"'{fspath(path)}' is not a readable .pth file: {error}") from error


def _read_pca(path: PathType) -> Tensor:
    matrix = _read_pth(path)
    if not isinstance(matrix, Tensor) or matrix.ndim != 2:
        raise CheckpointError(f"'{fspath(path)}' does not hold a PCA matrix [pixels, code_size]")
    refuse_unusable({"the PCA matrix": matrix}, fspath(path))
    return matrix if matrix.shape[0] > matrix.shape[1] else matrix.T


def _infer_architecture(states: dict[str, dict[str, Tensor]], code_size: int) -> Architecture:
    sftmd, predictor = states["sftmd"], states["predictor"]
    needed = {"conv1.weight": sftmd, "upscale.0.weight": sftmd, "ConvNet.0.weight": predictor}
    missing = [key for key, state in needed.items() if key not in state]
    if missing:
        raise CheckpointError(
            f"these are not IKC checkpoints: missing {', '.join(missing)}. "
            "Pass the SFTMD, Predictor and Corrector files in that order"
        )
    channels = outputs(sftmd, "conv1.weight")
    expansion = outputs(sftmd, "upscale.0.weight") // channels
    # Two x2 stages make x4; x2 and x3 have one.
    scale = 4 if "upscale.3.weight" in sftmd else round(expansion**0.5)
    if scale not in SIGMA_RANGES:
        raise CheckpointError(f"the SFTMD upscales by {scale}; IKC has 2, 3 and 4")
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
