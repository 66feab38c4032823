"""Graph templates: exported graphs without their weights, which need no torch to be completed.

A template file holds the graphs of a float32 bundle without the tensors that come from a
checkpoint, and one more graph, `folding`, which computes these tensors from those of the
checkpoint: it holds the exact rewrites (`rewrites`) as they were traced. To complete the graphs,
ONNX Runtime runs `folding`, and its outputs are appended to the graphs (docs/adr/0026). Only numpy,
ONNX Runtime and safetensors are needed. `tools/graph_template.py` writes templates, with torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.bundle_writer import new_bundle
from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import BASIS_FILE, Bundle, Manifest, write_manifest
from ikc_deploy.errors import CheckpointError, ExportError
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.checkpoint_record import FORMAT, CheckpointRecord, read_record
from ikc_deploy.parsing import read_json
from ikc_deploy.typed_values import read_settings
from ikc_deploy.version import __version__
from ikc_deploy.weights import WeightsSource, shipped_templates

Arrays = Mapping[str, NDArray[Any]]
"""Tensors of a checkpoint by name."""

FOLDING: Final = "folding"
"""Name of the graph that computes the tensors of the others."""

RECORD_FILE: Final = "template.json"

SEPARATOR: Final = ":"
"""Between the name of a graph and that of its tensor, in the outputs of `folding`."""

_FLOAT: Final = 1
"""TensorProto.FLOAT."""


@dataclass(frozen=True)
class TemplateKey:
    """What a checkpoint has to agree in with the one that a template was made from."""

    architecture: dict[str, Any]
    """Settings of the networks, without their name."""
    shapes: dict[str, list[int]]
    """Shape of every tensor of the networks, by name."""
    constants: list[str]
    """Names of the tensors that are part of the graphs: buffers, which training does not change."""
    constants_sha256: str
    """Checksum of these tensors, as float32."""

    @classmethod
    def of(
        cls, architecture: Architecture, tensors: Arrays, constants: Iterable[str]
    ) -> TemplateKey:
        """Return the key of a checkpoint.

        Args:
            architecture: Settings of its networks.
            tensors: Its tensors.
            constants: Names of the tensors that are no weights.

        Raises:
            KeyError: There is no tensor of such a name.
        """
        settings = {key: value for key, value in architecture.to_dict().items() if key != "name"}
        names = sorted(constants)
        digest = hashlib.sha256()
        for name in names:
            digest.update(np.ascontiguousarray(tensors[name], dtype="<f4").tobytes())
        return cls(
            # As read from JSON, which has no tuples.
            json.loads(json.dumps(settings)),
            {name: list(tensors[name].shape) for name in sorted(tensors)},
            names,
            digest.hexdigest(),
        )


@dataclass(frozen=True)
class TemplateRecord:
    """The content of a template file, except for the graphs."""

    key: TemplateKey
    """Properties of the checkpoints that fit."""
    manifest: dict[str, Any]
    """Manifest of the bundle that the template was made from."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as arrays."""

    record: CheckpointRecord
    """Architecture, basis and record of the training."""
    tensors: Arrays
    """Tensors of the networks, finite and floating point."""


def find_template(checkpoint: Checkpoint) -> Path | None:
    """Return the shipped template file that fits a checkpoint; None if there is none."""
    for path in shipped_templates().values():
        with zipfile.ZipFile(path) as archive:
            key = _read_record(archive).key
        if set(key.constants) <= set(checkpoint.tensors) and key == TemplateKey.of(
            checkpoint.record.architecture, checkpoint.tensors, key.constants
        ):
            return path
    return None


def bundle_from_template(
    template: Path, checkpoint: Checkpoint, source: WeightsSource, out: Path
) -> Bundle:
    """Write the float32 bundle of a checkpoint and return it opened and verified.

    Its graphs are those of an export: the gate of exports compared them when the template was made.
    Differences from torch are not measured again, so its manifest records none.

    Args:
        template: Template file that fits (see `find_template`).
        checkpoint: Weights, basis and training record.
        source: Name and checksum of the checkpoint file.
        out: Folder of the bundle.

    Raises:
        ExportError: The template does not fit.
        OutputError: `out` holds anything but a bundle, or cannot be written.
    """
    with zipfile.ZipFile(template) as archive:
        record = _read_record(archive)
        names = {Path(name).stem for name in archive.namelist() if name.endswith(".onnx")}
        graphs = {name: archive.read(f"{name}.onnx") for name in sorted(names)}
    folded = _fold(graphs.pop(FOLDING), checkpoint.tensors)
    basis, training = checkpoint.record.basis, checkpoint.record.training
    manifest = replace(
        read_settings(Manifest, record.manifest),
        name=source.name,
        basis_id=basis.id,
        weights_sha256=source.sha256,
        random_weights=False,
        architecture=checkpoint.record.architecture.to_dict(),
        training=training,
        tools={"ikc-deploy": __version__, "python": platform.python_version()},
        recommended_iters=training.get(
            "recommended_iters", checkpoint.record.architecture.loop.iters
        ),
        parity=None,
    )
    with new_bundle(out) as folder:
        for name, graph in graphs.items():
            completed = graph + _initializers(folded.get(name, {}))
            write_atomically(folder / f"{name}.onnx", completed)
        basis.save(folder / BASIS_FILE)
        files = [*(f"{name}.onnx" for name in graphs), BASIS_FILE]
        write_manifest(folder, manifest, record_files(folder, files))
    return Bundle.open(out)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint without torch.

    Args:
        path: A file by `ikc_deploy.networks.checkpoints.save_checkpoint`.

    Returns:
        The checkpoint; None if its tensors have a type that numpy lacks (bfloat16).

    Raises:
        CheckpointError: The file is damaged or no checkpoint, or a tensor cannot be weights.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            kinds = {file.get_slice(name).get_dtype() for name in names}
            if not kinds <= {"F16", "F32", "F64"}:
                return None
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"'{path}' is not a readable safetensors file ({error}). "
            "Convert .pth files of the reference with ikc-import"
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"'{path}' is not a checkpoint of ikc-deploy ('{FORMAT}')")
    broken = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"'{path}' cannot be used: NaN or infinite: {', '.join(broken[:12])}")
    try:
        basis = tensors.pop("basis.components"), tensors.pop("basis.mean")
    except KeyError as error:
        raise CheckpointError(f"'{path}' is incomplete or was altered: {error}") from error
    return Checkpoint(read_record(metadata, *basis, str(path)), tensors)


def _read_record(archive: zipfile.ZipFile) -> TemplateRecord:
    return read_settings(TemplateRecord, read_json(archive.read(RECORD_FILE)))


def _fold(graph: bytes, tensors: Arrays) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Return the tensors of each graph, by graph and name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Errors only: it warns that it cannot compute everything ahead of the run.
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        feeds = {
            each.name: np.ascontiguousarray(tensors[each.name], np.float32)
            for each in session.get_inputs()
        }
        values = session.run(None, feeds)
    except Exception as error:  # ONNX Runtime's errors share no other base.
        raise ExportError(
            f"the weights do not fit their graph template ({error}); reinstall ikc-deploy"
        ) from error
    folded: dict[str, dict[str, NDArray[np.float32]]] = {}
    for output, value in zip(session.get_outputs(), values, strict=True):
        name, _, tensor = output.name.partition(SEPARATOR)
        folded.setdefault(name, {})[tensor] = value
    return folded


def _initializers(tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return an encoded ONNX model that has only these tensors, as initializers of its graph.

    Appended to another encoded model, it adds them to that model's graph: the encoding of protobuf
    defines that a message of which a field has two parts is the merge of both.
    """
    graph = b"".join(_field(5, _tensor(name, value)) for name, value in sorted(tensors.items()))
    return _field(7, graph)


def _tensor(name: str, value: NDArray[np.float32]) -> bytes:
    """Return an encoded TensorProto: dims = 1, data_type = 2, name = 8, raw_data = 9."""
    dims = b"".join(b"\x08" + _varint(size) for size in value.shape)
    kind = b"\x10" + _varint(_FLOAT)
    data = np.ascontiguousarray(value, "<f4").tobytes()
    return dims + kind + _field(8, name.encode()) + _field(9, data)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
