"""The plain networks as ONNX graphs without rewrites, for benchmarks."""

from __future__ import annotations

from pathlib import Path

import torch

from ikc_deploy.export.graphs import export_module
from ikc_deploy.networks.loop_networks import IkcNetworks

_EXAMPLE = (2, 24, 32)


def export_plain_graphs(networks: IkcNetworks, folder: Path) -> None:
    """Write the plain networks as ONNX graphs.

    `predictor.onnx` (lr -> code), `sftmd.onnx` (lr, code -> sr) and `corrector.onnx` (sr, code ->
    next_code); images are `[N,3,H,W]` float32 in [0,1], batch and size dynamic.

    Args:
        networks: Networks on the CPU, in evaluation mode.
        folder: Existing folder.
    """
    scale = networks.architecture.scale
    batch, height, width = _EXAMPLE
    lr = torch.zeros(batch, 3, height, width)
    sr = torch.zeros(batch, 3, scale * height, scale * width)
    code = torch.zeros(batch, networks.architecture.code_size)
    lr_axes = {0: "batch", 2: "height", 3: "width"}
    sr_axes = {0: "batch", 2: "sr_height", 3: "sr_width"}
    code_axes = {0: "batch"}
    jobs = {
        "predictor": ({"lr": lr}, {"lr": lr_axes}, "code"),
        "sftmd": ({"lr": lr, "code": code}, {"lr": lr_axes, "code": code_axes}, "sr"),
        "corrector": ({"sr": sr, "code": code}, {"sr": sr_axes, "code": code_axes}, "next_code"),
    }
    modules = networks.modules()
    for name, (inputs, axes, output) in jobs.items():
        export_module(modules[name], inputs, axes, [output], folder / f"{name}.onnx")
