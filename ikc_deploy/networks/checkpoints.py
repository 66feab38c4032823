"""Checkpoints: networks, kernel basis, architecture and training record in one file.

A checkpoint is a safetensors file. Names of tensors begin with the names of the loop's graphs
(`sftmd.*`, `predictor.*`, `corrector.*`, or `restorer.*`, `estimator.*`); `basis.components` and
`basis.mean` are the basis. The metadata holds the rest as JSON. Loading never unpickles.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ikc_deploy.errors import CheckpointError
from ikc_deploy.files import write_atomically
from ikc_deploy.kernels import KERNEL_SIZE, KernelBasis, family_kernels
from ikc_deploy.networks.architecture import DAN_DESIGNS, Architecture, architecture
from ikc_deploy.networks.checkpoint_record import FORMAT, read_record
from ikc_deploy.networks.corrector import build_corrector
from ikc_deploy.networks.dan import Dan1Estimator, Dan1Restorer, Dan2Estimator, Dan2Restorer
from ikc_deploy.networks.kernel_parametrization import EllipseParametrization, SigmaCurve
from ikc_deploy.networks.loop_networks import DanNetworks, IkcNetworks, LoopNetworks
from ikc_deploy.networks.predictor import build_predictor
from ikc_deploy.networks.sftmd import CodeNormalization
from ikc_deploy.networks.sr_network import build_sr_network
from ikc_deploy.networks.tensors import fill, read_tensors, refuse_unusable

_Networks = TypeVar("_Networks", bound=LoopNetworks)


def empty_networks(settings: Architecture, basis: KernelBasis) -> IkcNetworks:
    """Return IKC's networks in the right shapes, uninitialised, for weights that are loaded next.

    Raises:
        CheckpointError: The architecture and the basis have codes of different sizes, or the
            design is one of DAN.
    """
    _check_basis(settings, basis)
    if settings.design in DAN_DESIGNS:
        raise CheckpointError(
            f"'{settings.name}' is of the {settings.design} design of DAN, where only networks of "
            "IKC are supported; choose one of its designs"
        )
    return IkcNetworks(
        settings,
        basis,
        build_sr_network(settings),
        build_predictor(settings),
        build_corrector(settings),
    )


def empty_dan_networks(settings: Architecture, basis: KernelBasis) -> DanNetworks:
    """Return DAN's networks in the right shapes, with PyTorch's initial weights, as published.

    Raises:
        CheckpointError: The architecture and the basis have codes or kernels of different sizes, or
            the design is one of IKC.
    """
    _check_basis(settings, basis)
    if basis.kernel_size != settings.kernel_size:
        raise CheckpointError(
            f"the architecture has kernels of {settings.kernel_size} pixels a side, "
            f"the basis {basis.kernel_size}"
        )
    if settings.design == "dan1":
        return DanNetworks(settings, basis, Dan1Restorer(settings), Dan1Estimator(settings))
    if settings.design == "dan2":
        estimator = Dan2Estimator(settings, basis)
        return DanNetworks(settings, basis, Dan2Restorer(settings), estimator)
    raise CheckpointError(f"'{settings.name}' is of the {settings.design} design, not of DAN")


def new_dan_networks(
    settings: Architecture, seed: int, basis: KernelBasis | None = None
) -> DanNetworks:
    """Return untrained networks of DAN; see `untrained_networks`.

    Args:
        settings: Architecture of the networks, of a design of DAN.
        seed: Seed of the random weights.
        basis: Basis of the kernel codes; None fits one to the family of kernels.

    Raises:
        CheckpointError: As `empty_dan_networks`.
    """
    return _untrained(empty_dan_networks, settings, seed, basis)


def new_networks(
    settings: Architecture, seed: int, basis: KernelBasis | None = None
) -> IkcNetworks:
    """Return untrained networks of IKC; see `untrained_networks`.

    Args:
        settings: Architecture of the networks, of a design of IKC.
        seed: Seed of the random weights.
        basis: Basis of the kernel codes; None fits one to the family of kernels.

    Raises:
        CheckpointError: As `empty_networks`.
    """
    return _untrained(empty_networks, settings, seed, basis)


def untrained_networks(
    settings: Architecture, seed: int, basis: KernelBasis | None = None
) -> LoopNetworks:
    """Return untrained networks of any loop on the CPU, reproducible from `seed`.

    Args:
        settings: Architecture of the networks; its design determines the loop.
        seed: Seed of the random weights; the global generator of torch is left unchanged.
        basis: Basis of the kernel codes; None fits one to the family of kernels.

    Returns:
        Networks in training mode, with gradients.

    Raises:
        CheckpointError: The architecture and the basis do not fit each other.
    """
    return _untrained(_empty_of(settings), settings, seed, basis)


def _empty_of(settings: Architecture) -> Callable[[Architecture, KernelBasis], LoopNetworks]:
    return empty_dan_networks if settings.design in DAN_DESIGNS else empty_networks


def _untrained(
    empty: Callable[[Architecture, KernelBasis], _Networks],
    settings: Architecture,
    seed: int,
    basis: KernelBasis | None,
) -> _Networks:
    basis = basis or _fitted_basis(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = empty(settings, basis)
        if isinstance(networks, IkcNetworks):
            for module in (networks.sftmd, networks.predictor, networks.corrector):
                module.initialize()
    if isinstance(networks, IkcNetworks):
        _fit_to_basis(networks)
    return networks


def _fit_to_basis(networks: IkcNetworks) -> None:
    """Fit the parts of untrained networks that describe the codes of the basis."""
    settings, basis = networks.architecture, networks.basis
    codes = basis.encode(family_kernels(settings.kernels, settings.sigma_range))
    # Levels cover their whole range, independent of the blur.
    codes[:, settings.kernel_components :] = np.linspace(0, 1, len(codes))[:, None]
    for network in networks.modules().values():
        for part in network.modules():
            if isinstance(part, SigmaCurve | EllipseParametrization):
                part.fit_to(basis)
            if isinstance(part, CodeNormalization) and settings.design != "reference":
                part.fit_to(codes)


def _fitted_basis(settings: Architecture) -> KernelBasis:
    # The networks of IKC have kernels of one size.
    size = settings.kernel_size if settings.design in DAN_DESIGNS else KERNEL_SIZE
    basis = KernelBasis.fit(
        settings.sigma_range, settings.kernel_components, size, settings.kernels
    )
    return basis.with_levels(settings.levels)


def _check_basis(settings: Architecture, basis: KernelBasis) -> None:
    if settings.code_size != basis.code_size:
        raise CheckpointError(
            f"the architecture has codes of {settings.code_size} components, "
            f"the basis {basis.code_size}"
        )


def random_networks(name: str, seed: int = 0) -> LoopNetworks:
    """Return a named architecture with seeded random weights, for benchmarks and engine builds.

    Raises:
        CheckpointError: The name is unknown.
    """
    return untrained_networks(architecture(name), seed).freeze()


def save_checkpoint(
    networks: LoopNetworks, path: str | PathLike[str], dtype: torch.dtype = torch.float32
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


def load_checkpoint(path: str | PathLike[str]) -> LoopNetworks:
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
    networks = _empty_of(record.architecture)(record.architecture, record.basis)
    networks.training = record.training
    load_tensors(networks, tensors, fspath(path))
    return networks.freeze()


def load_tensors(networks: LoopNetworks, tensors: dict[str, Tensor], source: str) -> None:
    """Fill the networks from tensors whose names begin with those of the loop's graphs.

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
