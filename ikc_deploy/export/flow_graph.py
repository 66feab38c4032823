"""The kernel prior as an ONNX graph from z to kernel, for kernel searches without torch.

`z` is float32 `[N,k*k]`, N dynamic; `kernel` is float32 `[N,k,k]`, sum 1, in the FKP convention.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import onnxruntime
import torch
from torch import Tensor, nn

from ikc_deploy.errors import ExportError
from ikc_deploy.export.graphs import export_module
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.flow import KernelFlow

PARITY: Final = 1e-6
"""Largest difference of a kernel's weight from torch; kernels have peaks of 0.02 to 0.3."""

_COMPARED: Final = 64


def export_flow(flow: KernelFlow, path: Path) -> float:
    """Write the graph of `flow.decode` to a file.

    Args:
        flow: Flow on the CPU.
        path: ONNX file; an existing one is replaced.

    Returns:
        The largest difference of a kernel's weight in ONNX Runtime from torch.

    Raises:
        ExportError: The difference exceeds `PARITY`; `path` stays unchanged.
    """
    pixels = flow.size**2
    with TemporaryDirectory() as folder:
        graph = Path(folder) / "flow.onnx"
        example = {"z": torch.zeros(2, pixels)}
        export_module(_FlowDecoder(flow), example, {"z": {0: "batch"}}, ["kernel"], graph)
        distance = _distance(flow, graph)
        if distance > PARITY:
            raise ExportError(
                f"the graph of the x{flow.scale} kernel prior differs by {distance:.2g} from "
                f"torch; at most {PARITY:g} is allowed. '{path}' was not written"
            )
        write_atomically(path, graph.read_bytes())
    return distance


def _distance(flow: KernelFlow, path: Path) -> float:
    z = torch.randn(_COMPARED, flow.size**2, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"z": z.numpy()})
    with torch.no_grad():
        return float((flow.decode(z) - torch.from_numpy(found)).abs().max())


class _FlowDecoder(nn.Module):
    def __init__(self, flow: KernelFlow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, z: Tensor) -> Tensor:
        return self.flow.decode(z)
