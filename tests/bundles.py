"""Bundles of small networks that several test modules use."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import torch
from torch import nn

from ikc_deploy.bundle.manifest import Bundle, FrameIO, Precision
from ikc_deploy.export.export_settings import ExportSettings, UsrnetExport
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.export.usrnet_graph import add_usrnet
from ikc_deploy.files import atomic_folder
from ikc_deploy.locks import locked
from ikc_deploy.networks.architecture import Architecture, Design
from ikc_deploy.networks.checkpoints import new_networks, save_checkpoint, untrained_networks
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.networks.sftmd import Sftmd
from ikc_deploy.networks.usrnet import Usrnet, UsrnetSettings, save_usrnet
from ikc_deploy.networks.weights_loader import load_weights
from tests.samples import small_architecture

EXPORTS: Final = "IKC_TEST_EXPORTS"
"""Environment variable that holds the folder of the exports of a run."""


def save_small(
    folder: Path, design: Design = "compact", scale: int = 4, name: str = "small"
) -> Path:
    """A checkpoint of small untrained networks; the compact ones start close to bicubic.

    The P of the film ones has experts, as that of the shipped weights, and all biases differ, as
    those of trained networks: an export would merge equal ones.
    """
    path = folder / f"{name}.safetensors"
    settings = replace(small_architecture(design, scale), experts=int(design == "film"))
    networks = untrained_networks(settings, seed=0)
    if design == "film":
        change_vectors(networks, seed=0)
    save_checkpoint(networks, path)
    return path


def save_busy(folder: Path) -> Path:
    """A checkpoint of small networks in which everything counts, as training leaves them.

    As they are made, the last layers of all three are close to nothing, and what lies before them
    can be anything.
    """
    networks = new_networks(Architecture("busy", 2, "compact", 32, 1, 32, (0.2, 2.0)), seed=1)
    with torch.no_grad():
        networks.sftmd.conv_output.weight.mul_(30)
        for block in cast(Sftmd, networks.sftmd).residual_blocks:
            block.conv2.weight.mul_(5)
        for module in networks.corrector.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(1.5)
    path = folder / "busy.safetensors"
    save_checkpoint(networks, path)
    return path


def change_vectors(networks: LoopNetworks, seed: int) -> None:
    """Change every bias a little, and each in another way."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in networks.modules().values():
            for parameter in (each for each in module.parameters() if each.ndim == 1):
                parameter.add_(0.001 * torch.randn(parameter.shape, generator=random))


def export_small(
    folder: Path,
    design: Design = "compact",
    scale: int = 4,
    precision: Precision = "fp32",
    io: FrameIO = "uint8",
) -> Bundle:
    """A bundle of such networks, exported once in a run of all tests and copied from there."""
    name = f"{design}-x{scale}-{precision}-{io}"
    kept = os.environ.get(EXPORTS)
    if kept is None:
        return _export(folder, design, scale, ExportSettings(precision, io), name)
    source = Path(kept) / name
    with locked(source):
        if not source.is_dir():
            with atomic_folder(source) as made:
                _export(made, design, scale, ExportSettings(precision, io), name)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    return Bundle.open(folder / name)


def _export(
    folder: Path, design: Design, scale: int, settings: ExportSettings, name: str
) -> Bundle:
    checkpoint = save_small(folder, design, scale)
    return export_bundle(load_weights(str(checkpoint)), folder / name, settings)


def near_bicubic_usrnet() -> Usrnet:
    """The smallest USRNet with every part, as training starts: its prior changes little."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Usrnet(UsrnetSettings(2, (4, 4, 4, 4), 1, 4))
        network.initialize()
    return network.eval().requires_grad_(False)


def with_usrnet(bundle: Bundle, folder: Path, size: tuple[int, int]) -> Bundle:
    """A copy of `bundle` in `folder` with a fourth graph for LR frames of `size`."""
    copied = Path(shutil.copytree(bundle.path, folder / "bundle"))
    weights = folder / "usrnet.safetensors"
    save_usrnet(near_bicubic_usrnet(), weights)
    return add_usrnet(copied, UsrnetExport(weights, size))
