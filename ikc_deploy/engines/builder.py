"""Compilation of one graph of a bundle to a TensorRT plan, with either variant.

The network is strongly typed, so the graph determines the precision. TF32 is off, so float32 layers
compute in float32. TensorRT reports most failures by a return value and a message to its logger:
every return value is checked, and the messages are added to the exception.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from ikc_deploy.bundle.engine_store import LayerPrecision, Shape
from ikc_deploy.bundle.manifest import Bundle, Manifest
from ikc_deploy.bundle.tensorrt_variants import NOISE
from ikc_deploy.engines.layer_precision import check_layer_precision
from ikc_deploy.engines.targets import Target
from ikc_deploy.engines.toolchain import Toolchain, rtx_member
from ikc_deploy.errors import EngineError
from ikc_deploy.files import write_atomically
from ikc_deploy.paths import cache_folder
from ikc_deploy.runtime.frames import FrameShape
from ikc_deploy.runtime.onnx_files import read_graph

FLAGS: Final = {"strongly_typed": True, "tf32": False}
"""Flags of every build; part of the fingerprint."""

_MIB: Final = 2**20


BuildProgress = Callable[[str, str, int, int], None]
"""Callback during a build with (graph, TensorRT's phase, completed steps, total steps)."""


@dataclass(frozen=True)
class BuiltPlan:
    """The result of building a graph."""

    data: bytes
    """Serialised TensorRT plan."""
    layer_precision: LayerPrecision
    """Numbers of layers by type and dtype."""


def build_plan(
    bundle: Bundle, graph: str, toolchain: Toolchain, target: Target, report: BuildProgress
) -> BuiltPlan:
    """Compile a graph of a bundle for the GPUs of a toolchain.

    Args:
        bundle: Opened bundle.
        graph: Name of a graph of the bundle's loop, or "usrnet".
        toolchain: Variant of TensorRT and its compute capabilities.
        target: Settings of the build.
        report: Called during the build; an exception in it cancels the build.

    Raises:
        EngineError: TensorRT rejects the graph or a setting, a convolution has another precision
            than the bundle, or a kernel code is not float32.
        KeyboardInterrupt: Ctrl-C was pressed during the build.
    """
    trt = toolchain.library.module
    with _checked(toolchain, f"cannot start building the {graph}"):
        builder = trt.Builder(toolchain.library.logger)
    # The parser owns the weights, so it must exist until the plan is built.
    network, parser = _parse(builder, bundle, graph, toolchain)
    precisions = check_layer_precision(network, graph, bundle.manifest.precision)
    config = _configure(builder, network, toolchain, target, bundle.manifest)
    with _timing_cache(config, toolchain, target):
        data = _build(builder, network, config, toolchain, graph, report)
    del parser
    return BuiltPlan(data, precisions)


def _parse(builder: Any, bundle: Bundle, graph: str, toolchain: Toolchain) -> tuple[Any, Any]:
    trt = toolchain.library.module
    path, model = bundle.graph(graph), read_graph(bundle, graph)
    typed = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    with _checked(toolchain, f"cannot parse '{path}'") as require:
        network = builder.create_network(1 << int(typed))
        require(network is not None and network.get_flag(typed))
        parser = trt.OnnxParser(network, toolchain.library.logger)
        if not parser.parse(model):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            require(False, "; ".join(map(_parser_error, errors)))
    return network, parser


def _parser_error(error: Any) -> str:
    lines = [line for line in error.desc().splitlines() if NOISE not in line]
    said, node = " ".join(lines), error.node_name()
    return f"node '{node}' ({error.node_operator()}): {said}" if node else said


def _configure(
    builder: Any, network: Any, toolchain: Toolchain, target: Target, manifest: Manifest
) -> Any:
    trt = toolchain.library.module
    config = builder.create_builder_config()
    with _checked(toolchain, "cannot set up the build") as require:
        require(config is not None)
        config.clear_flag(trt.BuilderFlag.TF32)
        require(not config.get_flag(trt.BuilderFlag.TF32), "TF32 cannot be disabled")
        config.builder_optimization_level = target.builder_level
        require(config.builder_optimization_level == target.builder_level)
        if target.workspace_mib is not None:
            pool, size = trt.MemoryPoolType.WORKSPACE, target.workspace_mib * _MIB
            config.set_memory_pool_limit(pool, size)
            require(config.get_memory_pool_limit(pool) == size)
        if toolchain.ahead_of_time:
            config.num_compute_capabilities = len(toolchain.compute_capabilities)
            for index, capability in enumerate(toolchain.compute_capabilities):
                require(config.set_compute_capability(rtx_member(trt, capability), index))
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    # Graphs for frames of one size have no dynamic dimensions, so profiles do not apply.
    fixed = all(-1 not in tuple(tensor.shape) for tensor in inputs)
    for profile in () if fixed else target.profiles:
        ends = (profile.min, profile.opt, profile.max)
        with _checked(toolchain, f"cannot use the profile {profile}") as require:
            made = builder.create_optimization_profile()
            require(made is not None)
            for name in (tensor.name for tensor in inputs):
                shapes = [_input_shape(name, end, manifest) for end in ends]
                made.set_shape(name, *shapes)
                require([tuple(shape) for shape in made.get_shape(name)] == shapes)
            require(config.add_optimization_profile(made) >= 0)
    return config


def _input_shape(name: str, shape: Shape, manifest: Manifest) -> tuple[int, ...]:
    """Return the shape of a graph's input (see `ikc_deploy.export.graphs`) for LR frames."""
    frames = FrameShape(*shape)
    shapes = {
        "lr": frames.array(manifest.io),
        "sr": frames.array("float", manifest.scale),
        "code": (frames.batch, manifest.code_size),
    }
    if name not in shapes:
        raise EngineError(f"unknown graph input '{name}': expected one of {', '.join(shapes)}")
    return shapes[name]


def _build(
    builder: Any, network: Any, config: Any, toolchain: Toolchain, graph: str, report: BuildProgress
) -> bytes:
    with _deferred_interrupt() as interrupted:
        monitor = _monitor(toolchain.library.module, graph, report, interrupted)
        config.progress_monitor = monitor
        with _checked(toolchain, f"cannot build the {graph}") as require:
            plan = builder.build_serialized_network(network, config)
            require(plan is not None or monitor.cancelled)
    if interrupted.is_set():
        raise KeyboardInterrupt
    if monitor.raised is not None:
        raise monitor.raised
    return bytes(plan)


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets, because TensorRT loses exceptions in its callbacks.

    Outside the main thread, which alone receives signals in Python, it is never set.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _monitor(trt: Any, graph: str, report: BuildProgress, interrupted: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """A monitor whose callbacks raise nothing, because TensorRT cannot handle exceptions.

        An exception in `report` cancels the build and is raised after it.
        """

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.raised: BaseException | None = None
            self._totals: dict[str, int] = {}

        @property
        def cancelled(self) -> bool:
            return self.raised is not None or interrupted.is_set()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:  # noqa: ARG002
            self._totals[phase] = steps
            self._report(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._report(phase, step + 1)
            return not self.cancelled

        def phase_finish(self, phase: str) -> None:
            # A phase may end before its last step.
            self._report(phase, self._totals[phase])

        def _report(self, phase: str, done: int) -> None:
            try:
                report(graph, phase, done, self._totals[phase])
            except BaseException as error:
                self.raised = error

    return Monitor()


@contextmanager
def _timing_cache(config: Any, toolchain: Toolchain, target: Target) -> Iterator[None]:
    """Use the kernel timings of earlier builds for the same GPU, and save those of this one."""
    if toolchain.ahead_of_time or not target.timing_cache:
        yield
        return
    (capability,) = toolchain.compute_capabilities
    name = f"{toolchain.name}-{toolchain.library.version}-{capability}.cache"
    file = cache_folder() / "timing" / name
    _read_timings(config, toolchain, file)
    yield
    # An error of the cache must not discard a plan that took minutes to build.
    try:
        with _checked(toolchain, "cannot save the timing cache") as require:
            cache = config.get_timing_cache()
            require(cache is not None)
            content = cache.serialize()
            require(content is not None)
        write_atomically(file, bytes(content))
    except (EngineError, OSError) as error:
        _warn(file, error)


def _read_timings(config: Any, toolchain: Toolchain, file: Path) -> None:
    """Pass the timings in `file` to the builder; if they are unusable, it measures again."""
    try:
        timings = file.read_bytes() if file.is_file() else b""
    except OSError as error:
        timings = b""
        _warn(file, error)
    try:
        _set_timings(config, toolchain, timings)
    except EngineError as error:
        if not timings:
            raise
        _warn(file, error)
        _set_timings(config, toolchain, b"")


def _set_timings(config: Any, toolchain: Toolchain, timings: bytes) -> None:
    with _checked(toolchain, "cannot use a timing cache") as require:
        cache = config.create_timing_cache(timings)
        require(cache is not None and config.set_timing_cache(cache, False))


def _warn(file: Path, error: Exception) -> None:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    warnings.warn(
        f"the timing cache '{file}' cannot be used, so kernels are measured again: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )


class _Require(Protocol):
    def __call__(self, done: bool, reason: str = "") -> None:
        """Raise `EngineError` unless `done`, with this reason or else TensorRT's messages."""


@contextmanager
def _checked(toolchain: Toolchain, failure: str) -> Iterator[_Require]:
    """Convert failures of a TensorRT step to an `EngineError` with TensorRT's messages."""
    messages = toolchain.library.messages
    mark = messages.mark()

    def sentence(reason: str) -> str:
        said = reason or messages.since(mark)
        short = "OutOfMemory" in said or "workspace limit" in said
        hint = "; raise workspace_mib in the target" if short else ""
        return f"{toolchain.name} {toolchain.library.version} {failure}: {said}{hint}"

    def require(done: bool, reason: str = "") -> None:
        if not done:
            raise EngineError(sentence(reason))

    try:
        yield require
    except (TypeError, ValueError, RuntimeError) as error:
        # The bindings raise these if the library returns nothing or rejects an argument.
        said = messages.since(mark)
        raise EngineError(sentence(f"{error}; {said}")) from error
