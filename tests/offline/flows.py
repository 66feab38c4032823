"""A kernel flow for tests of what is built on one: untrained, its kernels are noise of sum 1."""

from __future__ import annotations

from pathlib import Path

import torch

from ikc_deploy.networks.flow import KernelFlow, save_flow


def save_untrained(folder: Path, scale: int) -> Path:
    """The file of a flow with random weights."""
    path = folder / f"untrained-x{scale}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_flow(KernelFlow(scale), path)
    return path
