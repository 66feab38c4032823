"""Bundles of small networks that several test modules use."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from ikc_deploy.bundle.manifest import Bundle, FrameIO, Precision
from ikc_deploy.export.export_settings import ExportSettings, UsrnetExport
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.export.usrnet_graph import add_usrnet
from ikc_deploy.files import atomic_folder
from ikc_deploy.locks import locked
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import save_checkpoint, untrained_networks
from ikc_deploy.networks.usrnet import Usrnet, UsrnetSettings, save_usrnet
from ikc_deploy.networks.weights_loader import load_weights
from tests.samples import small_architecture

EXPORTS: Final = "IKC_TEST_EXPORTS"
"""Environment variable that holds the folder of the exports of a run."""


def save_small(
    folder: Path, design: Design = "compact", scale: int = 4, name: str = "small"
) -> Path:
    """A checkpoint of small untrained networks; the compact ones start close to bicubic.

    The P of the film ones has experts, as that of the shipped weights.
    """
    path = folder / f"{name}.safetensors"
    settings = replace(small_architecture(design, scale), experts=int(design == "film"))
    save_checkpoint(untrained_networks(settings, seed=0), path)
    return path


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
