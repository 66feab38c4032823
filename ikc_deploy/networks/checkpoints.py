"""Checkpoints: three networks, kernel basis, architecture and training record in one file.

A checkpoint is a safetensors file. Tensor names are `sftmd.*`, `predictor.*`, `corrector.*`,
`basis.components` and `basis.mean`; the metadata holds the rest as JSON. Loading never unpickles.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ikc_deploy.errors import CheckpointError
from ikc_deploy.files import write_atomically
from ikc_deploy.kernels import KernelBasis, family_kernels
from ikc_deploy.networks.architecture import Architecture, architecture
from ikc_deploy.networks.checkpoint_record import FORMAT, read_record
from ikc_deploy.networks.corrector import Corrector, build_corrector
from ikc_deploy.networks.ellipses import EllipseParametrization
from ikc_deploy.networks.predictor import Predictor, build_predictor
from ikc_deploy.networks.sftmd import CodeNormalization
from ikc_deploy.networks.sigma_curve import SigmaCurve
from ikc_deploy.networks.sr_network import SrNetwork, build_sr_network
from ikc_deploy.networks.tensors import fill, read_tensors, refuse_unusable


@dataclass(eq=False)
class IkcNetworks:
    """F, P and C with the basis of their kernel codes: the content of a checkpoint."""

    architecture: Architecture
    """Settings that determine the shapes of the networks."""
    basis: KernelBasis
    """Kernel basis in which the codes are expressed."""
    sftmd: SrNetwork
    """SR network F, of any design."""
    predictor: Predictor
    """Predictor P."""
    corrector: Corrector
    """Corrector C."""
    training: dict[str, Any] = field(default_factory=dict)
    """Record of the training: recipe, data, steps, figures. Empty for random weights."""

    def modules(self) -> dict[str, nn.Module]:
        """Return the three networks by the names of their graphs."""
        return {"sftmd": self.sftmd, "predictor": self.predictor, "corrector": self.corrector}

    def eval(self) -> IkcNetworks:
        """Switch all three to evaluation mode without gradients, in place, and return self."""
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        return self


def empty_networks(settings: Architecture, basis: KernelBasis) -> IkcNetworks:
    """Return networks of the right shapes, uninitialised, for weights that are loaded next.

    Raises:
        CheckpointError: The architecture and the basis have codes of different sizes.
    """
    if settings.code_size != basis.code_size:
        raise CheckpointError(
            f"the architecture has codes of {settings.code_size} components, "
            f"the basis {basis.code_size}"
        )
    return IkcNetworks(
        settings,
        basis,
        build_sr_network(settings),
        build_predictor(settings),
        build_corrector(settings),
    )


def new_networks(
    settings: Architecture, seed: int, basis: KernelBasis | None = None
) -> IkcNetworks:
    """Return untrained networks on the CPU, reproducible from `seed`.

    Args:
        settings: Architecture of the networks.
        seed: Seed of the random weights; the global generator of torch is left unchanged.
        basis: Basis of the kernel codes; None fits one to the family of kernels.

    Returns:
        Networks in training mode, with gradients.
    """
    family = settings.kernels
    if basis is None:
        basis = KernelBasis.fit(settings.sigma_range, settings.kernel_components, family=family)
        basis = basis.with_levels(settings.levels)
    codes = basis.encode(family_kernels(family, settings.sigma_range))
    # Levels cover their whole range, independent of the blur.
    codes[:, settings.kernel_components :] = np.linspace(0, 1, len(codes))[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = empty_networks(settings, basis)
        for module in (networks.sftmd, networks.predictor, networks.corrector):
            module.initialize()
    for network in networks.modules().values():
        for part in network.modules():
            if isinstance(part, SigmaCurve | EllipseParametrization):
                part.fit_to(basis)
            if isinstance(part, CodeNormalization) and settings.design != "reference":
                part.fit_to(codes)
    return networks


def random_networks(name: str, seed: int = 0) -> IkcNetworks:
    """Return a named architecture with seeded random weights, for benchmarks and engine builds.

    Raises:
        CheckpointError: The name is unknown.
    """
    return new_networks(architecture(name), seed).eval()


def save_checkpoint(
    networks: IkcNetworks, path: str | PathLike[str], dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint atomically.

    Args:
        networks: Networks on any device; they stay unchanged.
        path: File to write; an existing one is replaced.
        dtype: Type of the stored weights; float16 halves the size. Buffers stay float32.
    """
    tensors: dict[str, Tensor] = {}
    for name, module in networks.modules().items():
        for key, value in module.state_dict().items():
            # Buffers (curves, normalisation) stay exact: they are few and meant to be equal.
            exact = key in dict(module.named_buffers())
            stored = value.detach().cpu().to(torch.float32 if exact else dtype)
            tensors[f"{name}.{key}"] = stored.contiguous()
    basis = networks.basis
    tensors["basis.components"] = torch.from_numpy(np.ascontiguousarray(basis.components))
    tensors["basis.mean"] = torch.from_numpy(np.ascontiguousarray(basis.mean))
    metadata = {
        "format": FORMAT,
        "architecture": json.dumps(networks.architecture.to_dict()),
        "basis": json.dumps({"id": basis.id, "sigma_range": basis.sigma_range}),
        "training": json.dumps(networks.training),
    }
    write_atomically(path, save(tensors, metadata))


def load_checkpoint(path: str | PathLike[str]) -> IkcNetworks:
    """Read a checkpoint.

    Args:
        path: A file by `save_checkpoint`. Nothing in it is executed.

    Returns:
        The networks as float32, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged or not a checkpoint of this project, or holds
            tensors that do not fit its architecture or cannot be weights (all of them listed).
    """
    tensors, metadata = read_tensors(Path(path), FORMAT)
    refuse_unusable({k: v for k, v in tensors.items() if k.startswith("basis.")}, fspath(path))
    try:
        components, mean = (tensors.pop(f"basis.{name}").numpy() for name in ("components", "mean"))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"'{fspath(path)}' is incomplete or was altered: {error}") from error
    record = read_record(metadata, components, mean, fspath(path))
    networks = empty_networks(record.architecture, record.basis)
    networks.training = record.training
    load_tensors(networks, tensors, fspath(path))
    return networks.eval()


def load_tensors(networks: IkcNetworks, tensors: dict[str, Tensor], source: str) -> None:
    """Fill the networks from tensors named `sftmd.*`, `predictor.*`, `corrector.*`.

    Args:
        networks: Networks to change in place.
        tensors: Weights by name.
        source: Description of the file for error messages.

    Raises:
        CheckpointError: Tensors are missing, unexpected, wrongly shaped, integer or not finite; all
            of them are listed, and nothing was loaded.
    """
    fill(
        networks.modules(),
        tensors,
        f"'{source}' does not fit the architecture '{networks.architecture.name}'",
    )
