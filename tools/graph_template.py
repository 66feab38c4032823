"""Write the graph templates of shipped weights (`ikc_deploy.export.graph_templates`).

    python -m tools.graph_template x4-lite

Run it for new weights whose graphs no shipped template fits, and for all weights after a change to
the graphs. Each template comes from a new export that passes the gate.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import onnx
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import ExportError
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.export.graph_templates import (
    FOLDING,
    RECORD_FILE,
    SEPARATOR,
    TemplateKey,
    TemplateRecord,
)
from ikc_deploy.export.graphs import OPSET, graph_modules, quiet_exporter, strip_traces
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.networks.weights_loader import load_weights
from ikc_deploy.weights import DEFAULT_WEIGHTS, shipped_weights

_DATE: Final = (1980, 1, 1, 0, 0, 0)

FOLDER: Final = shipped_weights()[DEFAULT_WEIGHTS].parent / "templates"


@click.command()
@click.argument("names", nargs=-1, required=True)
def main(names: tuple[str, ...]) -> None:
    """Write the graph templates of the shipped weights NAMES."""
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        weights, path = load_weights(name), FOLDER / f"{name}.zip"
        with tempfile.TemporaryDirectory() as folder:
            bundle = export_bundle(weights, Path(folder) / "bundle", ExportSettings())
            template_from_bundle(weights.networks, bundle, path)
        click.echo(f"{path}: {path.stat().st_size / 2**10:.0f} KiB")


def template_from_bundle(networks: LoopNetworks, bundle: Bundle, path: Path) -> None:
    """Write the template file of a bundle.

    Args:
        networks: Networks that the bundle was exported from.
        bundle: Bundle in float32 for uint8 frames.
        path: File to write; an existing one is replaced.

    Raises:
        ExportError: The bundle has another precision or type of frames.
    """
    manifest = bundle.manifest
    if (manifest.precision, manifest.io) != ("fp32", "uint8"):
        raise ExportError("graph templates are made from bundles in fp32 for uint8 frames")
    modules = graph_modules(networks, "fp32", "uint8")
    graphs, taken = {}, set()
    for name, module in modules.items():
        model = onnx.load_from_string(bundle.graph_bytes(name))
        weights = _take_weights(model, module)
        taken |= {name + SEPARATOR + key for key in weights}
        graphs[name] = model.SerializeToString(deterministic=True)
    graphs[FOLDING] = _folding_graph(networks, taken)
    tensors, constants = _tensors(networks)
    key = TemplateKey.of(networks.architecture, tensors, constants)
    write_template(path, TemplateRecord(key, asdict(manifest)), graphs)


def write_template(path: Path, record: TemplateRecord, graphs: Mapping[str, bytes]) -> None:
    """Write a template file atomically; equal contents give equal bytes.

    Args:
        path: File to write; an existing one is replaced.
        record: Record of the template.
        graphs: Encoded ONNX models by name, `folding` included.
    """
    contents = {f"{name}.onnx": graph for name, graph in sorted(graphs.items())}
    contents[RECORD_FILE] = json.dumps(asdict(record), indent=1, sort_keys=True).encode()
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED, 9)
    write_atomically(path, data.getvalue())


def _tensors(networks: LoopNetworks) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return all tensors by their name in checkpoints, and the names of those that are buffers."""
    tensors: dict[str, NDArray[Any]] = {}
    constants: list[str] = []
    for name, module in networks.modules().items():
        buffers = dict(module.named_buffers())
        for key, value in module.state_dict().items():
            tensors[f"{name}.{key}"] = value.numpy()
            constants += [f"{name}.{key}"] if key in buffers else []
    return tensors, constants


def _take_weights(model: onnx.ModelProto, module: nn.Module) -> list[str]:
    """Remove the parameters of `module` from the initializers of its graph; return their names."""
    parameters = dict(module.named_parameters())
    kept, taken = [], []
    for tensor in model.graph.initializer:
        parameter = parameters.get(tensor.name)
        if parameter is not None:
            if not torch.equal(torch.from_numpy(numpy_helper.to_array(tensor).copy()), parameter):
                raise ExportError(f"'{tensor.name}' differs from the parameter of that name")
            taken.append(tensor.name)
        else:
            kept.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return taken


class _Folding(nn.Module):
    """Computes the parameters of the graphs from those of plain networks.

    Args:
        networks: The plain networks.
        wanted: Names of the results: a graph's, `SEPARATOR` and a parameter's.
    """

    def __init__(self, networks: LoopNetworks, wanted: list[str]) -> None:
        super().__init__()
        for name, module in networks.modules().items():
            self.add_module(name, module)
        self.networks, self.wanted = networks, wanted

    def forward(self) -> list[Tensor]:
        """Return the wanted parameters."""
        results = _parameters(graph_modules(self.networks, "fp32", "uint8", copied=False))
        return [results[name].detach().clone() for name in self.wanted]


def _parameters(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        name + SEPARATOR + key: value
        for name, module in modules.items()
        for key, value in module.named_parameters()
    }


class _WithoutInitialization(TorchFunctionMode):
    """Leaves new layers as they are: each is filled next, and random values cannot be traced."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func` unless it initializes a tensor."""
        if func is Tensor.uniform_ or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _folding_graph(networks: LoopNetworks, wanted: set[str]) -> bytes:
    """Return the encoded graph from tensors of checkpoints to parameters of graphs."""
    module = _Folding(networks, sorted(wanted))
    with torch.no_grad(), quiet_exporter():
        with _WithoutInitialization():
            traced = torch.export.export(module, (), strict=False)
        # Unoptimized, because the weights are not inputs yet and would be taken for constants.
        program = torch.onnx.export(
            traced,
            (),
            dynamo=True,
            output_names=module.wanted,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"torch.onnx.export returned nothing for '{FOLDING}'")
    model = program.model_proto
    tensors, _ = _tensors(networks)
    kept = []
    for tensor in model.graph.initializer:
        if tensor.name in tensors:
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
        else:
            kept.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    with quiet_exporter():
        model = onnxscript.optimizer.optimize(model)
    strip_traces(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


if __name__ == "__main__":
    main()
