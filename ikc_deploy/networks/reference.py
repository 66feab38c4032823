"""Import of the published IKC checkpoints (four .pth files) into one checkpoint.

Tolerated are `module.` prefixes of DataParallel, a state dict wrapped under a common name, and
`sft_branch.*`, which the reference registers and never uses. `.pth` files are always read with
`weights_only=True`, so nothing in them is executed.
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
from ikc_deploy.networks.checkpoints import empty_networks, load_tensors
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.tensors import refuse_unusable

PathType = str | PathLike[str]

_WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model", "params", "net")
_UNUSED = "sft_branch."


def import_reference(
    sftmd: PathType, predictor: PathType, corrector: PathType, pca: PathType
) -> IkcNetworks:
    """Return the networks in the published files; tensor shapes determine scale and sizes.

    Args:
        sftmd: File of the SR network F.
        predictor: File of the predictor P.
        corrector: File of the corrector C.
        pca: File of the matrix `[kernel pixels, code_size]` (or transposed).

    Returns:
        The networks as float32, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: A file is unreadable, or tensors are missing, unexpected, wrongly shaped,
            integer or not finite (all of them listed).
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
    """Return the tensors of a .pth file without wrappers, `module.` and unused branches.

    Raises:
        CheckpointError: The file is missing, damaged or holds anything but named tensors.
    """
    content = _read_pth(path)
    if isinstance(content, dict):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointError(f"'{fspath(path)}' does not hold a state dict of named tensors")
    names = {key: key.removeprefix("module.") for key in content}
    return {
        names[key]: value for key, value in content.items() if not names[key].startswith(_UNUSED)
    }


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


def _read_pth(path: PathType) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file at '{fspath(path)}'") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"'{fspath(path)}' is damaged or holds more than tensors, and only tensors are read "
            "(weights_only=True). Save only its state_dict() and import that file"
        ) from error
    except OSError as error:
        raise CheckpointError(f"'{fspath(path)}' cannot be read: {error.strerror}") from error
    except Exception as error:
        # torch.load raises many types for files that it did not write, most without a message.
        raise CheckpointError(
            f"'{fspath(path)}' is not a readable .pth file: torch.save did not write it, or it is "
            "incomplete; download it again"
        ) from error


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
