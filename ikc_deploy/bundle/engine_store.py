"""The engines of a bundle, and their records.

    engines/<fingerprint>/  GRAPH.plan for each graph of the bundle's loop  engine.json

An engine is the three graphs compiled by one variant and version of TensorRT, for some compute
capabilities and frame sizes. `ikc_deploy.engines` writes engines. This module reads them, and needs
neither TensorRT nor a GPU. Only engines that the manifest lists are used.
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import Bundle, copy_verified
from ikc_deploy.bundle.tensorrt_variants import TensorRTVariantName
from ikc_deploy.errors import BundleError, InputError
from ikc_deploy.loops import Loop
from ikc_deploy.parsing import read_json
from ikc_deploy.text import printable
from ikc_deploy.typed_values import read_settings

SCHEMA: Final = 1
"""Version of the schema of `engine.json`; a reader refuses others."""

ENGINES_FOLDER: Final = "engines"
ENGINE_FILE: Final = "engine.json"

MAX_RECORD: Final = 2**20
"""Maximum size of an `engine.json` in bytes; larger files are not read."""

_MAX_FRAMES: Final = 2**16
"""Maximum number of frames in a batch, and of pixels along a side."""

_AGAIN: Final = "build the engine again with ikc-export --engine, or copy the bundle again"

Shape = tuple[int, int, int]
"""Shape of a batch of LR frames: number of frames, height, width."""

LayerPrecision = dict[str, dict[str, int]]
"""Number of layers of a network by type, then dtype: `{"CONVOLUTION": {"HALF": 105}, ...}`."""


@dataclass(frozen=True)
class Profile:
    """The range of LR shapes that an engine accepts, and the shape that it is tuned for.

    Raises:
        InputError: A size is invalid, or min <= opt <= max does not hold.
    """

    min: Shape
    """Smallest batch, height and width."""
    opt: Shape
    """Batch, height and width that the engine is tuned for."""
    max: Shape
    """Largest batch, height and width."""

    def __post_init__(self) -> None:
        """Require whole positive sizes with min <= opt <= max on each axis."""
        for name, shape in (("min", self.min), ("opt", self.opt), ("max", self.max)):
            counts = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)
            if len(shape) != 3 or not counts or max(shape) > _MAX_FRAMES:
                raise InputError(
                    f"{name} must be batch, height and width, whole numbers from 1 to "
                    f"{_MAX_FRAMES}, got {list(shape)}"
                )
        for axis, name in enumerate(("batch", "height", "width")):
            low, tuned, high = self.min[axis], self.opt[axis], self.max[axis]
            if not low <= tuned <= high:
                raise InputError(
                    f"min <= opt <= max must hold, got {low}, {tuned}, {high} for the {name}"
                )

    def covers(self, shape: Shape) -> bool:
        """Return whether the profile covers frames of this shape."""
        sizes = zip(self.min, shape, self.max, strict=True)
        return all(low <= size <= high for low, size, high in sizes)

    def __str__(self) -> str:
        """Return the range in words: `1x8x8 to 4x720x1280, tuned for 1x180x320`."""
        return f"{sizes_text(self.min)} to {sizes_text(self.max)}, tuned for {sizes_text(self.opt)}"


@dataclass(frozen=True)
class EngineRecord:
    """The content of `engine.json`: everything that the plans depend on, and their layers.

    Raises:
        ValueError: There is no compute capability or no profile.
    """

    fingerprint: str
    """Digest of all fields below except the layer precision; name of the engine's folder."""
    variant: TensorRTVariantName
    version: str
    """Version of TensorRT that built the engine."""
    platform: str
    """Platform of the build, as from `this_platform`."""
    compute_capabilities: tuple[str, ...]
    """Compute capabilities that the engine runs on, for example "8.9"."""
    profiles: tuple[Profile, ...]
    workspace_mib: int | None
    """Maximum of TensorRT's scratch memory in MiB; None for the whole GPU."""
    builder_level: int
    """Optimization level of TensorRT's builder."""
    graphs: dict[str, str]
    """sha256 of the ONNX file of each plan, by graph."""
    layer_precision: dict[str, LayerPrecision]
    """Number of layers of each parsed network, by graph."""

    def __post_init__(self) -> None:
        """Require at least one compute capability and one profile."""
        if not self.compute_capabilities or not self.profiles:
            raise ValueError("an engine has at least one compute capability and one profile")


@dataclass(frozen=True)
class Engine:
    """An engine of an opened bundle."""

    bundle: Bundle
    record: EngineRecord

    @property
    def path(self) -> Path:
        """Folder of the engine."""
        return self.bundle.path / ENGINES_FOLDER / self.record.fingerprint

    def plan_bytes(self, graph: str) -> int:
        """Return the size in bytes of the plan of a graph of the bundle's loop."""
        return self.bundle.files[self._name(graph)].bytes

    def plan(self, graph: str) -> bytes:
        """Return the plan of a graph, for TensorRT to deserialise.

        Args:
            graph: Name of a graph of the bundle's loop.

        Returns:
            The verified content of the plan.

        Raises:
            BundleError: The plan was altered since the bundle was opened.
        """
        try:
            return self.bundle.read(self._name(graph))
        except BundleError as error:
            raise BundleError(f"{error}; or {_AGAIN}") from error

    def _name(self, graph: str) -> str:
        return f"{ENGINES_FOLDER}/{self.record.fingerprint}/{graph}.plan"


def this_platform() -> str:
    """Return the system and processor, for example "linux-x86_64"."""
    return f"{sys.platform}-{platform.machine().lower()}"


def read_engines(bundle: Bundle) -> tuple[Engine, ...]:
    """Return every engine of an opened bundle, in the order of their fingerprints.

    Args:
        bundle: The opened bundle.

    Returns:
        The engines that the manifest lists.

    Raises:
        BundleError: An `engine.json` is damaged, incomplete or of another schema.
    """
    listed = sorted(
        name
        for name in bundle.files
        if PurePosixPath(name).match(f"{ENGINES_FOLDER}/*/{ENGINE_FILE}")
    )
    return tuple(Engine(bundle, _read_record(bundle, name)) for name in listed)


def write_record(folder: Path, record: EngineRecord) -> None:
    """Write `engine.json` into `folder`, that of an engine."""
    values = {"schema": SCHEMA, **asdict(record)}
    (folder / ENGINE_FILE).write_text(json.dumps(values, indent=2) + "\n")


def engine_files(fingerprint: str, loop: Loop) -> list[str]:
    """Return the files of an engine of a bundle of this loop, as paths in the bundle."""
    names = (*(f"{graph}.plan" for graph in loop.graphs), ENGINE_FILE)
    return [f"{ENGINES_FOLDER}/{fingerprint}/{name}" for name in names]


def copy_engines(old: Bundle, new: Path) -> tuple[set[str], set[str]]:
    """Copy the engines of a bundle into a new bundle folder with the same graphs.

    Args:
        old: The bundle with engines.
        new: A bundle folder with graphs and without engines.

    Returns:
        The fingerprints of the engines that were copied, and of those that were not, because they
        were built from other graphs.

    Raises:
        BundleError: An engine is damaged.
    """
    names = {graph: f"{graph}.onnx" for graph in old.loop.graphs}
    # A new bundle of another loop has none of these files.
    written = record_files(new, (name for name in names.values() if (new / name).is_file()))
    graphs = {graph: written[name].sha256 for graph, name in names.items() if name in written}
    kept, left = set(), set()
    for engine in read_engines(old):
        name = engine.record.fingerprint
        if engine.record.graphs != graphs:
            left.add(name)
            continue
        kept.add(name)
        copy_verified(old, engine_files(name, old.loop), new)
    return kept, left


def _read_record(bundle: Bundle, name: str) -> EngineRecord:
    path = bundle.path / name
    if bundle.files[name].bytes > MAX_RECORD:
        raise BundleError(f"'{path}' is damaged (it has more than {MAX_RECORD} bytes); {_AGAIN}")
    data = bundle.read(name)
    try:
        values = read_json(data)
        schema = values.pop("schema")
        record = read_settings(EngineRecord, values) if schema == SCHEMA else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"'{path}' is damaged ({error}); {_AGAIN}") from error
    if record is None:
        raise BundleError(
            f"'{path}' has schema {printable(schema, 40)}, and {SCHEMA} is read here; {_AGAIN}"
        )
    whole = set(engine_files(record.fingerprint, bundle.loop)) <= set(bundle.files)
    whole = whole and set(record.graphs) == set(record.layer_precision)
    whole = whole and set(record.graphs) == set(bundle.loop.graphs)
    if path.parent.name != record.fingerprint or not whole:
        raise BundleError(f"'{path.parent}' is not the engine that its record describes; {_AGAIN}")
    return record


def sizes_text(shape: Shape) -> str:
    """Return a shape for messages: `1x180x320`."""
    return "x".join(map(str, shape))
