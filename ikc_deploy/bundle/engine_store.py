"""The engines of a bundle: their records, and the choice of an engine for a machine.

    engines/<fingerprint>/  GRAPH.plan for each graph of the bundle's loop  engine.json

An engine is the three graphs compiled by one variant and version of TensorRT, for some compute
capabilities and frame sizes. `ikc_deploy.engines` writes engines. This module reads them, and needs
neither TensorRT nor a GPU to determine whether one would run. Only engines that the manifest lists
are used.

    host = Host("tensorrt-rtx", version="1.7.1.116", compute_capability="8.9")
    engine, profile = find_engine(bundle, host, shape=(1, 540, 960))
    runtime.deserialize_cuda_engine(engine.plan(bundle.loop.image.name))
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
from ikc_deploy.errors import BundleError, EngineError, InputError
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
        return f"{_x(self.min)} to {_x(self.max)}, tuned for {_x(self.opt)}"


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


@dataclass(frozen=True)
class Host:
    """The variant of TensorRT and the GPU that an engine has to fit."""

    variant: TensorRTVariantName
    version: str | None
    """Installed version of the variant; None if it cannot be used here."""
    compute_capability: str | None
    """Compute capability of the GPU, for example "8.9"; None without a GPU."""
    problem: str = ""
    """Reason why the variant cannot be used, if it is other than that it is not installed."""
    platform: str = ""
    """Platform, as from `this_platform`; the empty string means the current one."""


@dataclass(frozen=True)
class Choice:
    """The engine of a bundle that a host uses."""

    engine: Engine | None
    """Chosen engine; None if none fits."""
    profile: int
    """Index of the profile to use; 0 if no shape was requested."""
    others: tuple[tuple[Engine, str], ...]
    """All other engines, each with a sentence why it was not chosen."""


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


def choose_engine(bundle: Bundle, host: Host, shape: Shape | None = None) -> Choice:
    """Choose the engine for a host and a frame shape.

    Of several engines that fit, the one tuned for the nearest size is chosen, then the one built
    for the fewest compute capabilities.

    Args:
        bundle: The opened bundle.
        host: The variant of TensorRT and the GPU.
        shape: Batch, height and width of LR frames; None for any.

    Returns:
        The choice, with the reasons against the other engines.

    Raises:
        BundleError: As `read_engines`.
    """
    fitting: list[tuple[tuple[float, int], int, Engine]] = []
    others = []
    for engine in read_engines(bundle):
        reason = incompatibility(engine, host, shape)
        if reason:
            others.append((engine, reason))
            continue
        distance, profile = _nearest_profile(engine.record, shape)
        rank = (distance, len(engine.record.compute_capabilities))
        fitting.append((rank, profile, engine))
    if not fitting:
        return Choice(None, 0, tuple(others))
    fitting.sort(key=lambda entry: entry[0])
    _, profile, chosen = fitting[0]
    sentence = f"it fits as well, and {chosen.record.fingerprint} fits better"
    return Choice(chosen, profile, (*others, *((engine, sentence) for _, _, engine in fitting[1:])))


def find_engine(bundle: Bundle, host: Host, shape: Shape | None = None) -> tuple[Engine, int]:
    """Return the engine that `choose_engine` chooses and the index of its profile.

    Args:
        bundle: The opened bundle.
        host: The variant of TensorRT and the GPU.
        shape: Batch, height and width of LR frames; None for any.

    Returns:
        The engine, and the index of its profile for `shape`.

    Raises:
        EngineError: No engine fits. The message states why for each, and how to build one.
        BundleError: As `read_engines`.
    """
    choice = choose_engine(bundle, host, shape)
    if choice.engine is not None:
        return choice.engine, choice.profile
    reasons = [f"{engine.record.fingerprint}: {reason}" for engine, reason in choice.others]
    raise EngineError(
        f"'{bundle.path}' has no {host.variant} engine for this machine"
        + (f" ({'; '.join(reasons)})" if reasons else "")
        + f"; build one with: {build_command(bundle, host.variant)}"
    )


def incompatibility(engine: Engine, host: Host, shape: Shape | None = None) -> str:
    """Return why a host cannot use an engine.

    Args:
        engine: The engine.
        host: The variant of TensorRT and the GPU.
        shape: Batch, height and width of LR frames; None for any.

    Returns:
        The reason, as a clause for messages; empty if the host can use it.
    """
    record = engine.record
    if record.variant != host.variant:
        return f"it is for {record.variant}, not for {host.variant}"
    if host.version is None:
        return host.problem or f"{host.variant} is not installed here"
    if record.version != host.version:
        return (
            f"{record.variant} {record.version} built it, and {host.version} is installed; "
            "plans work with the version that built them only"
        )
    here = host.platform or this_platform()
    # TensorRT for RTX's plans are portable between systems, TensorRT's are not.
    if record.variant == "tensorrt" and record.platform != here:
        return f"it was built on {record.platform}, and this is {here}"
    if host.compute_capability is None:
        return "there is no GPU here"
    if host.compute_capability not in record.compute_capabilities:
        return (
            f"it is for compute capability {', '.join(record.compute_capabilities)}, "
            f"and the GPU here has {host.compute_capability}"
        )
    held = {graph: engine.bundle.files[f"{graph}.onnx"].sha256 for graph in record.graphs}
    if held != record.graphs:
        return "it was built from other graphs than the bundle holds"
    if shape is not None and not any(profile.covers(shape) for profile in record.profiles):
        taken = " or ".join(f"{_x(p.min)} to {_x(p.max)}" for p in record.profiles)
        return f"it takes LR frames of {taken} (batch, height, width), not {_x(shape)}"
    return ""


def build_command(bundle: Bundle, variant: TensorRTVariantName) -> str:
    """Return the command that adds an engine of this variant, to run on the target machine."""
    return f"ikc-export --bundle '{bundle.path}' --engine {variant}"


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


def _nearest_profile(record: EngineRecord, shape: Shape | None) -> tuple[float, int]:
    """Return how far `shape` is from what its best profile is tuned for, and the profile's index.

    The distance is the ratio of the numbers of pixels, at least 1; it is 0 without a shape.
    """
    if shape is None:
        return 0.0, 0
    distances = []
    for index, profile in enumerate(record.profiles):
        if profile.covers(shape):
            ratio = _pixels(shape) / _pixels(profile.opt)
            distances.append((max(ratio, 1 / ratio), index))
    return min(distances)


def _pixels(shape: Shape) -> int:
    batch, height, width = shape
    return batch * height * width


def _x(shape: Shape) -> str:
    return "x".join(map(str, shape))
