"""Import of a published checkpoint of DAN or DANv2 (one .pth file).

Version, scale and sizes are derived from the shapes of all tensors that depend on them, by
majority, so that one wrong tensor is reported as such and does not make all others wrong.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from os import PathLike, fspath
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from ikc_deploy.errors import CheckpointError, KernelError
from ikc_deploy.kernels import CODE_SIZE, KERNEL_SIZE, SIGMA_RANGES, Family, KernelBasis
from ikc_deploy.networks.architecture import Architecture, Design
from ikc_deploy.networks.checkpoints import empty_dan_networks
from ikc_deploy.networks.foreign_checkpoints import NetworkMarks, read_network
from ikc_deploy.networks.loop_networks import DanNetworks
from ikc_deploy.networks.reference import unrounded_basis
from ikc_deploy.networks.tensors import fill

_NETWORK: Final = NetworkMarks(
    ("Restorer.fusion.weight", "Restorer.upscale.0.weight", "encoder", "init_ker_map")
)
_MARKS: Final[dict[Design, tuple[str, ...]]] = {
    "dan1": (
        r"Restorer\.head\.",
        r"Restorer\.body\.\d+\.body\.[023]\.(weight|bias|body)",
        r"Estimator\.(head_LR|head_HR|out)\.(weight|bias)",
    ),
    "dan2": (
        r"Restorer\.head[12]\.",
        r"Restorer\.body\.\d+\.body\.\d+\.body[12]\.",
        r"Estimator\.(head_LR|head_HR)\.0\.",
        r"Estimator\.(body\.body|tail)\.",
    ),
}
"""Patterns of the names of tensors that only one version has."""

_ANISOTROPIC_SIGMAS: Final = (0.6, 5.0)
"""Range of the sigmas of the anisotropic kernels of the publication, in HR pixels."""

_EXACT: Final = 1e-4
"""Largest difference of the first code from that of the delta kernel."""

_SYMMETRIC: Final = 1e-3
"""Largest difference of basis kernels from their mirror images, for an isotropic family."""

_Sizes = Iterable[tuple[str, int]]
"""Patterns of names of tensors, and the axis of their shape that has the size."""

_CHANNELS: Final = [
    (r"Restorer\.head1?\.(weight|bias)", 0),
    (r"Restorer\.fusion\.(weight|bias)", 0),
    (r"Restorer\.fusion\.weight", 1),
    (r"Restorer\.body\.\d+\.body\.2\.bias", 0),
    (r"Restorer\.body\.\d+\.body\.\d+\.body[12]\.2\.bias", 0),
]
_ESTIMATOR_WIDTH: Final = [
    (r"Estimator\.head_(LR|HR)\.(0\.)?(weight|bias)", 0),
    (r"Estimator\.body\.\d+\.body\.2\.(weight|bias)", 0),
    (r"Estimator\.body\.body\.\d+\.body[12]\.[02]\.(weight|bias)", 0),
]
_CODE_SIZE: Final = [
    (r"encoder", 2),
    (r"init_ker_map", 1),
    (r"Restorer\.head2\.weight", 1),
    (r"Estimator\.out\.(weight|bias)", 0),
]
_KERNEL_PIXELS: Final = [(r"encoder", 1), (r"Estimator\.tail\.2\.(weight|bias)", 0)]
"""Names of the tensors that show a size, each with the axis that has it."""


def import_dan(path: str | PathLike[str]) -> DanNetworks:
    """Return the networks of a published checkpoint.

    Args:
        path: The .pth file. Nothing in it is executed.

    Returns:
        The networks as float32, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: The file is unreadable or of no DAN; tensors are missing, unexpected,
            wrongly shaped, integer or not finite (all of them listed); or the loop would not start
            at the delta kernel's code in an orthonormal basis.
    """
    source = fspath(path)
    state = read_network(path, _NETWORK)
    settings = _infer_architecture(state, source)
    networks = empty_dan_networks(settings, _any_basis(settings))
    published = _Published(networks)
    fill(
        {"": published},
        {key: value.contiguous() for key, value in state.items()},
        f"'{source}' does not hold a {_title(settings)}",
    )
    basis = _read_basis(published, settings, state["encoder"].dtype, source)
    if settings.kernels != _family(basis):
        settings = _with_family(settings, _family(basis))
        basis = KernelBasis.from_components(basis.components, settings.sigma_range)
    filled = empty_dan_networks(settings, basis)
    filled.restorer.load_state_dict(networks.restorer.state_dict())
    filled.estimator.load_state_dict(networks.estimator.state_dict())
    filled.training = {"source": "imported reference checkpoint"}
    return filled.freeze()


class _Published(nn.Module):
    """The networks under the names of a published checkpoint."""

    def __init__(self, networks: DanNetworks) -> None:
        super().__init__()
        settings = networks.architecture
        side = settings.kernel_size
        self.Restorer, self.Estimator = networks.restorer, networks.estimator
        self.register_buffer("encoder", torch.zeros(1, side**2, settings.code_size))
        self.register_buffer("init_kernel", torch.zeros(1, side, side))
        self.register_buffer("init_ker_map", torch.zeros(1, settings.code_size))


def _title(settings: Architecture) -> str:
    name = "DAN" if settings.design == "dan1" else "DANv2"
    grouped = f"{settings.groups} groups of " if settings.design == "dan2" else ""
    return f"{name} of x{settings.scale}, {settings.channels} channels, {grouped}" + (
        f"{settings.blocks} blocks"
    )


def _infer_architecture(state: dict[str, Tensor], source: str) -> Architecture:
    design = _design(state, source)
    scale = _scale(state, design, source)
    channels = _voted(state, _CHANNELS, 64)
    width = _voted(state, _ESTIMATOR_WIDTH, 32)
    code_size = _voted(state, _CODE_SIZE, CODE_SIZE)
    pixels = _voted(state, _KERNEL_PIXELS, KERNEL_SIZE**2)
    side = math.isqrt(pixels)
    if side**2 != pixels or side % 2 == 0:
        side = _voted(state, [(r"init_kernel", 1), (r"init_kernel", 2)], KERNEL_SIZE)
    grouped = design == "dan2"
    blocks = r"Restorer\.body\.\d+\.body\.(\d+)\." if grouped else r"Restorer\.body\.(\d+)\."
    estimator = r"Estimator\.body\.body\.(\d+)\." if grouped else r"Estimator\.body\.(\d+)\."
    return Architecture(
        name=f"{'danv1' if design == 'dan1' else 'danv2'}-x{scale}",
        scale=scale,
        design=design,
        channels=channels,
        blocks=_counted(state, blocks),
        estimator_channels=2 * width,
        sigma_range=SIGMA_RANGES[scale],
        code_size=code_size,
        groups=_counted(state, r"Restorer\.body\.(\d+)\.") if grouped else 1,
        estimator_blocks=_counted(state, estimator),
        kernel_size=side,
    )


def _design(state: dict[str, Tensor], source: str) -> Design:
    """Return the version of which more tensors have the names."""
    votes = {
        design: sum(any(re.match(mark, key) for mark in marks) for key in state)
        for design, marks in _MARKS.items()
    }
    design = max(votes, key=lambda each: votes[each])
    if votes[design] == 0:
        found = ", ".join(sorted(state)[:3])
        raise CheckpointError(
            f"'{source}' is not a checkpoint of DAN or DANv2: it has no tensors Restorer.* and "
            f"Estimator.*, but {found or 'none'}"
        )
    return design


def _scale(state: dict[str, Tensor], design: Design, source: str) -> int:
    """Return the scale: x4 has two stages of upscaling; the others have one, of scale^2."""
    stages = {int(m[1]) for key in state if (m := re.match(r"Restorer\.upscale\.(\d+)\.", key))}
    expansion = _voted(state, [(r"Restorer\.upscale\.0\.(weight|bias)", 0)], 0)
    channels = _voted(
        state, [(r"Restorer\.fusion\.(weight|bias)", 0), (r"Restorer\.upscale\.0\.weight", 1)], 64
    )
    scale = 4 if 4 in stages else round(math.sqrt(expansion / channels))
    if scale not in SIGMA_RANGES and design == "dan2":
        reach = _voted(state, [(r"Estimator\.head_HR\.0\.weight", 2)], 0)
        scale = (reach - 1) // 4
    if scale not in SIGMA_RANGES:
        raise CheckpointError(
            f"'{source}' has no scale of 2, 3 or 4: its Restorer.upscale has the stages "
            f"{sorted(stages)}, the first one of {expansion} channels"
        )
    return scale


def _voted(state: dict[str, Tensor], sizes: _Sizes, default: int) -> int:
    """Return the most frequent of these sizes, or the published one if no tensor has any."""
    votes: Counter[int] = Counter()
    for pattern, axis in sizes:
        for key, value in state.items():
            if re.fullmatch(pattern, key) and value.ndim > axis and value.shape[axis] > 0:
                votes[value.shape[axis]] += 1
    return votes.most_common(1)[0][0] if votes else default


def _counted(state: dict[str, Tensor], pattern: str) -> int:
    """Return the number of indices from 0 on, up to the largest one that a name has."""
    found = [int(m[1]) for key in state if (m := re.match(pattern, key))]
    return max(found, default=0) + 1


def _any_basis(settings: Architecture) -> KernelBasis:
    """Return any basis of the right shape; the file's replaces it."""
    pixels = settings.kernel_size**2
    if settings.code_size > pixels:
        raise CheckpointError(
            f"a code of {settings.code_size} components cannot describe kernels of {pixels} pixels"
        )
    components = np.eye(pixels, settings.code_size, dtype=np.float32)
    return KernelBasis.from_components(components, settings.sigma_range)


def _read_basis(
    published: _Published, settings: Architecture, stored: torch.dtype, source: str
) -> KernelBasis:
    encoder = unrounded_basis(published.get_buffer("encoder")[0], stored)
    try:
        basis = KernelBasis.from_components(encoder, settings.sigma_range)
    except KernelError as error:
        raise CheckpointError(f"the encoder in '{source}' is not a kernel basis: {error}") from None
    wanted = torch.zeros_like(published.get_buffer("init_kernel"))
    wanted[0, settings.kernel_size // 2, settings.kernel_size // 2] = 1
    start = torch.from_numpy(basis.delta_code())[None]
    exact = max(_EXACT, torch.finfo(stored).eps)
    problems = [
        f"{name} differs by {difference:.3g}"
        for name, expected in (("init_kernel", wanted), ("init_ker_map", start))
        if (difference := float((published.get_buffer(name) - expected).abs().max())) > exact
    ]
    if problems:
        raise CheckpointError(
            f"the loop in '{source}' does not start at the delta kernel and its code in the "
            f"encoder's basis: {', '.join(problems)}"
        )
    return basis


def _family(basis: KernelBasis) -> Family:
    """Return the family of kernels: principal directions of isotropic ones have their symmetry."""
    side = basis.kernel_size
    kernels = basis.components.T.reshape(-1, side, side)
    turned = (kernels[:, ::-1], kernels[:, :, ::-1], kernels.transpose(0, 2, 1))
    largest = max(float(np.abs(kernels - other).max()) for other in turned)
    return "isotropic" if largest <= _SYMMETRIC else "anisotropic"


def _with_family(settings: Architecture, family: Family) -> Architecture:
    sigmas = SIGMA_RANGES[settings.scale] if family == "isotropic" else _ANISOTROPIC_SIGMAS
    values = settings.to_dict() | {"kernels": family, "sigma_range": sigmas}
    return Architecture.from_dict(values)
