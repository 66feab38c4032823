"""One file for everything a trained model is: three networks, basis, architecture, training record.

A checkpoint is a safetensors file. Tensor names are `sftmd.*`, `predictor.*`, `corrector.*`,
`basis.components` and `basis.mean`; the metadata holds the rest as JSON. Loading never unpickles.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ikc_deploy.errors import CheckpointError, KernelError
from ikc_deploy.files import write_atomically
from ikc_deploy.kernels import KernelBasis, family_kernels
from ikc_deploy.networks.architecture import Architecture, architecture
from ikc_deploy.networks.corrector import Corrector, build_corrector
from ikc_deploy.networks.ellipses import EllipseParametrization
from ikc_deploy.networks.predictor import Predictor, build_predictor
from ikc_deploy.networks.sftmd import CodeNormalization
from ikc_deploy.networks.sigma_curve import SigmaCurve
from ikc_deploy.networks.sr_network import SrNetwork, build_sr_network
from ikc_deploy.networks.tensors import fill, read_tensors, refuse_unusable

FORMAT: Final = "ikc-deploy checkpoint 1"


@dataclass(eq=False)
class IkcNetworks:
    """F, P and C with the basis that their codes mean; what a checkpoint holds."""

    architecture: Architecture
    basis: KernelBasis
    sftmd: SrNetwork
    predictor: Predictor
    corrector: Corrector
    training: dict[str, Any] = field(default_factory=dict)
    """How the weights came to be: recipe, data, steps, figures. Empty for random weights."""

    def modules(self) -> dict[str, nn.Module]:
        """The three networks by their graph names."""
        return {"sftmd": self.sftmd, "predictor": self.predictor, "corrector": self.corrector}

    def eval(self) -> IkcNetworks:
        """Evaluation mode for all three; returns self."""
        for module in self.modules().values():
            module.eval().requires_grad_(False)
        return self


def empty_networks(settings: Architecture, basis: KernelBasis) -> IkcNetworks:
    """Networks of the right shapes whose weights are about to be loaded."""
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
    """Untrained networks, reproducible from `seed`, with this basis or one of their own."""
    family = settings.kernels
    if basis is None:
        basis = KernelBasis.fit(settings.sigma_range, settings.kernel_components, family=family)
        basis = basis.with_levels(settings.levels)
    codes = basis.encode(family_kernels(family, settings.sigma_range))
    # Levels are spread over their whole range, whatever the blur.
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
    """A named architecture with seeded random weights, for benches and engine builds."""
    return new_networks(architecture(name), seed).eval()


def save_checkpoint(
    networks: IkcNetworks, path: str | PathLike[str], dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint atomically; weights as `dtype` (float16 halves what is shipped)."""
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
    """Read a checkpoint; weights come back as float32, in evaluation mode, on the CPU.

    Raises `CheckpointError` if the file is missing, damaged, not a checkpoint of this project,
    or holds tensors that do not fit its architecture or are no weights (all of them listed).
    """
    tensors, metadata = read_tensors(Path(path), FORMAT)
    refuse_unusable({k: v for k, v in tensors.items() if k.startswith("basis.")}, fspath(path))
    try:
        settings = Architecture.from_dict(json.loads(metadata["architecture"]))
        recorded = json.loads(metadata["basis"])
        low, high = recorded["sigma_range"]
        basis = KernelBasis(
            tensors.pop("basis.components").numpy(), tensors.pop("basis.mean").numpy(), (low, high)
        )
        training = dict(json.loads(metadata["training"]))
    except (KernelError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"'{fspath(path)}' is incomplete or was altered: {error}") from error
    if basis.id != recorded["id"]:
        raise CheckpointError(
            f"the kernel basis in '{fspath(path)}' is not the one it was saved with; "
            "the file was altered: get it again"
        )
    networks = empty_networks(settings, basis)
    networks.training = training
    load_tensors(networks, tensors, fspath(path))
    return networks.eval()


def load_tensors(networks: IkcNetworks, tensors: dict[str, Tensor], source: str) -> None:
    """Fill the networks from tensors named `sftmd.*`, `predictor.*`, `corrector.*`.

    Raises one `CheckpointError` that lists every missing, unexpected, wrongly shaped, integer and
    not finite tensor.
    """
    fill(
        networks.modules(),
        tensors,
        f"'{source}' does not fit the architecture '{networks.architecture.name}'",
    )
