"""The plain networks as ONNX graphs without rewrites, for benchmarks."""

from __future__ import annotations

from pathlib import Path

import torch

from ikc_deploy.export.graphs import export_module, input_axes
from ikc_deploy.loops import CODE, LR, SR
from ikc_deploy.networks.loop_networks import LoopNetworks

_EXAMPLE = (2, 24, 32)


def export_plain_graphs(networks: LoopNetworks, folder: Path) -> None:
    """Write the plain networks as ONNX graphs, one for each graph of the loop.

    Names of inputs are those of the loop; the only output is `code`, `sr` or `next_code`. Images
    are `[N,3,H,W]` float32, batch and size dynamic. Nothing is clamped.

    Args:
        networks: Networks on the CPU, in evaluation mode.
        folder: Existing folder.
    """
    scale = networks.architecture.scale
    batch, height, width = _EXAMPLE
    tensors = {
        LR: torch.zeros(batch, 3, height, width),
        SR: torch.zeros(batch, 3, scale * height, scale * width),
        CODE: torch.zeros(batch, networks.architecture.code_size),
    }
    for name, module in networks.modules().items():
        inputs = networks.loop.graph(name).inputs
        axes = input_axes("float", scale, inputs)
        export_module(
            module,
            {each: tensors[each] for each in inputs},
            {each: axes[each] for each in inputs},
            [networks.loop.outputs(name, "float")[0]],
            folder / f"{name}.onnx",
        )
