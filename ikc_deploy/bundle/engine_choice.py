"""The choice of an engine of a bundle for a machine; it needs neither TensorRT nor a GPU.

host = Host("tensorrt-rtx", version="1.7.1.116", compute_capability="8.9")
engine, profile = find_engine(bundle, host, shape=(1, 540, 960))
runtime.deserialize_cuda_engine(engine.plan(bundle.loop.image.name))
"""

from __future__ import annotations

from dataclasses import dataclass

from ikc_deploy.bundle.engine_store import (
    Engine,
    EngineRecord,
    Shape,
    read_engines,
    sizes_text,
    this_platform,
)
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.tensorrt_variants import TensorRTVariantName
from ikc_deploy.errors import EngineError


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
        taken = " or ".join(f"{sizes_text(p.min)} to {sizes_text(p.max)}" for p in record.profiles)
        return f"it takes LR frames of {taken} (batch, height, width), not {sizes_text(shape)}"
    return ""


def build_command(bundle: Bundle, variant: TensorRTVariantName) -> str:
    """Return the command that adds an engine of this variant, to run on the target machine."""
    return f"ikc-export --bundle '{bundle.path}' --engine {variant}"


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
