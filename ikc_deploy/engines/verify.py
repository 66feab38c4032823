"""Verification of an engine with Polygraphy: plans against ONNX Runtime on the target machine.

Polygraphy compares the outputs of each graph for the same inputs: those of the loop, and codes far
from its fixed point, where a correction changes the code. Then each runs the loop with its own
codes, so that errors accumulate as in use. The limits follow from the rounding errors of the
graphs, which the export measured and recorded in the manifest.

    python -m ikc_deploy.engines.verify BUNDLE FINGERPRINT     # the result as JSON

Polygraphy reads its variant of TensorRT from an environment variable once per process, so
`verify_engine` starts a process for each engine.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.bundle_writer import changed_bundle, check_bundle_folder
from ikc_deploy.bundle.engine_choice import incompatibility
from ikc_deploy.bundle.engine_store import Engine, read_engines
from ikc_deploy.bundle.manifest import Bundle, write_manifest
from ikc_deploy.bundle.measurements import EngineOutput, EngineStep, Verification
from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.bundle.tolerances import ENGINE, FRAME_LEVELS, LOOP
from ikc_deploy.engines.toolchain import this_host
from ikc_deploy.errors import BundleError, EngineError, IkcError, needs_extra
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.loops import CODE, FRAME, LR, NEXT_CODE, SR, Loop
from ikc_deploy.parsing import read_json
from ikc_deploy.runtime.backends.onnx_sessions import EXACT_INT8
from ikc_deploy.runtime.onnx_files import read_graph
from ikc_deploy.typed_values import read_settings

VERIFIED_ITERS: Final = 3
"""Number of corrections in the compared loop, as in the parity gate of exports."""

_USE_RTX: Final = "POLYGRAPHY_USE_TENSORRT_RTX"
_FRAMES: Final = 6
"""Number of frames for a start graph, whose outputs have few values per frame."""
_FAR: Final = (0.1, 0.9)
"""Positions of codes far from the fixed point, as shares of the sigma range."""
_MAX_SIDE: Final = 128
"""Largest side of LR frames in pixels; ONNX Runtime computes the reference on the CPU."""

Tensors = dict[str, NDArray[Any]]


def verify_engine(bundle: Bundle, engine: Engine) -> Verification:
    """Compare `engine` with ONNX Runtime and write the result into the bundle's manifest.

    Args:
        bundle: Opened bundle; its folder is changed.
        engine: Engine of the bundle.

    Returns:
        The result.

    Raises:
        MissingExtraError: Polygraphy is not installed.
        EngineError: The engine does not run on this machine, or exceeds the limits of its
            precision, in which case the result is in the manifest too.
    """
    reason = incompatibility(engine, this_host(engine.record.variant))
    name = engine.record.fingerprint
    if reason:
        raise EngineError(
            f"engine {name} cannot be compared with ONNX Runtime here: {reason}. On its target, "
            f"run: ikc-export --bundle '{bundle.path}' --verify polygraphy"
        )
    _import_polygraphy()
    check_bundle_folder(bundle.path)
    verification = _verify_in_subprocess(bundle.path, engine)
    with changed_bundle(bundle.path) as (now, changed):
        verified = now.manifest.verified | {name: verification}
        write_manifest(changed, replace(now.manifest, verified=verified), now.files)
    if not verification.passed:
        failed = [
            graph for graph, outputs in verification.graphs.items() if not _all_passed(outputs)
        ]
        raise EngineError(
            f"engine {name} differs from ONNX Runtime by more than rounding does "
            f"({', '.join(failed) or 'in the loop alone'}); do not use it. The measured errors "
            f"are in the manifest of '{bundle.path}'"
        )
    return verification


def runnable_engines(bundle: Bundle) -> list[Engine]:
    """Return the engines of `bundle` that run on this machine.

    Raises:
        EngineError: No engine runs here; the message lists the reasons.
    """
    verified = [(e, incompatibility(e, this_host(e.record.variant))) for e in read_engines(bundle)]
    runnable = [engine for engine, reason in verified if not reason]
    if not runnable:
        reasons = [f"{engine.record.fingerprint}: {reason}" for engine, reason in verified]
        raise EngineError(
            f"'{bundle.path}' has no engine that can be compared with ONNX Runtime here: "
            + ("; ".join(reasons) or "it has none at all; add one with --engine")
        )
    return runnable


def compare(bundle: Bundle, candidates: Mapping[str, Any], side: int) -> Verification:
    """Compare the graphs of `bundle` in ONNX Runtime with other runners.

    Args:
        bundle: Opened bundle.
        candidates: Polygraphy runners by graph.
        side: Side of the structured LR frames in pixels.

    Raises:
        BundleError: The manifest has no rounding errors of the graphs.
    """
    tolerances = engine_limits(bundle)
    references = {graph: _reference(bundle, graph) for graph in bundle.loop.graphs}
    frames = [_frame(bundle, side, seed) for seed in range(_FRAMES)]
    with _quiet():
        with ExitStack() as stack:
            for runner in (*references.values(), *candidates.values()):
                stack.enter_context(runner)
            feeds, expected = _run_loop(bundle, references, frames[0])
            _, found = _run_loop(bundle, candidates, frames[0])
            _add_far_codes(bundle.loop, feeds, references, frames, _far_codes(bundle))
        outputs = {
            graph: _compare_outputs(
                (references[graph], candidates[graph]), feeds[graph], tolerances
            )
            for graph in bundle.loop.graphs
        }
    steps = [
        EngineStep(
            step, _finite(psnr(ours[SR], theirs[SR])), _max_difference(ours[CODE], theirs[CODE])
        )
        for step, (ours, theirs) in enumerate(zip(found, expected, strict=True))
    ]
    min_psnr = -20 * math.log10(LOOP * tolerances[SR])
    passed = all(map(_all_passed, outputs.values())) and all(
        step.image_db is not None and step.image_db >= min_psnr and step.code_error is not None
        for step in steps
    )
    return Verification(_tools(), (side, side), outputs, steps, passed)


def engine_limits(bundle: Bundle) -> dict[str, float]:
    """Return the largest allowed mean error of each output of an engine of `bundle`, by name.

    Codes are in their own units, `sr` in units of its peak, `frame` in levels.

    Raises:
        BundleError: The manifest has no rounding errors of the graphs.
    """
    parity, loop = bundle.manifest.parity, bundle.loop
    if parity is None or set(parity.graphs) != set(loop.graphs):
        raise BundleError(
            f"the manifest of '{bundle.path}' has no rounding errors of its graphs, which the "
            "limits of engines depend on; export it again with ikc-export"
        )
    factor = ENGINE[bundle.manifest.precision]
    rounding = {graph: factor * parity.graphs[graph].whole.rounding for graph in loop.graphs}
    image = rounding[loop.image.name]
    # Mean difference between two slightly different values after rounding to 8 bits.
    rounded = 255 * image + FRAME_LEVELS["fp32"] / 100
    limits = {
        SR: image,
        FRAME: rounded if bundle.manifest.io == "uint8" else image,
        NEXT_CODE: rounding[loop.update.name],
    }
    return limits if loop.start is None else limits | {CODE: rounding[loop.start.name]}


def _far_codes(bundle: Bundle) -> list[NDArray[np.float32]]:
    """Return codes `[1,code_size]` at both ends of the range."""
    low, high = bundle.basis.sigma_range
    sigmas = [low + share * (high - low) for share in _FAR]
    return [bundle.basis.code_of_sigma(sigma)[None] for sigma in sigmas]


def _add_far_codes(
    loop: Loop,
    feeds: dict[str, list[Tensors]],
    references: Mapping[str, Any],
    frames: list[NDArray[Any]],
    codes: list[NDArray[np.float32]],
) -> None:
    """Add further frames for a start graph, and `codes` with the first frame for other graphs."""
    if loop.start is not None:
        feeds[loop.start.name] += [{LR: frame} for frame in frames[1:]]
    for code in codes:
        values = {LR: frames[0], CODE: code}
        feed = {name: values[name] for name in loop.image.inputs}
        values[SR] = np.array(references[loop.image.name].infer(feed)[SR])
        feeds[loop.image.name].append(feed)
        feeds[loop.update.name].append({name: values[name] for name in loop.update.inputs})


def _run_loop(
    bundle: Bundle, runners: Mapping[str, Any], frame: NDArray[Any]
) -> tuple[dict[str, list[Tensors]], list[Tensors]]:
    """Run the loop; return the inputs of each graph, and `sr` and `code` of every step."""
    loop = bundle.loop
    feeds: dict[str, list[Tensors]] = {graph: [] for graph in loop.graphs}

    def infer(graph: str, feed: Mapping[str, Any]) -> Tensors:
        feeds[graph].append(dict(feed))
        # Copies, because runners reuse their output buffers.
        return {name: np.array(array) for name, array in runners[graph].infer(dict(feed)).items()}

    start = bundle.basis.delta_code()[None] if loop.start is None else None
    steps = [
        {SR: images[SR], CODE: code}
        for code, images in loop.walk(infer, frame, start, VERIFIED_ITERS)
    ]
    return feeds, steps


def _compare_outputs(
    runners: tuple[Any, Any], feeds: list[Tensors], tolerances: Mapping[str, float]
) -> list[EngineOutput]:
    """Compare one graph with Polygraphy, by the mean error of each output."""
    from polygraphy.comparator import Comparator, SimpleCompareFunc

    verdict = SimpleCompareFunc(rtol=0.0, atol=dict(tolerances), check_error_stat="mean")
    results = Comparator.run(list(runners), data_loader=feeds)
    pairs = zip(*(results[runner.name] for runner in runners), strict=True)
    # Polygraphy also computes relative errors, which are not used; outputs may be 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        return [
            EngineOutput(
                index,
                name,
                _finite(result.max_absdiff),
                _finite(result.mean_absdiff),
                tolerances[name],
                bool(result) and _finite(result.mean_absdiff) is not None,
            )
            for index, pair in enumerate(pairs)
            for name, result in verdict(*pair).items()
        ]


def _exact_session(graph: bytes) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry(*EXACT_INT8)
    return onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])


def _reference(bundle: Bundle, graph: str) -> Any:
    from polygraphy.backend.onnxrt import OnnxrtRunner

    session = partial(_exact_session, read_graph(bundle, graph))
    return OnnxrtRunner(session, name=f"onnxruntime-{graph}")


def _plan_runner(engine: Engine, graph: str, profile: int) -> Any:
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    plan = EngineFromBytes(engine.plan(graph))
    return TrtRunner(plan, name=f"{engine.record.variant}-{graph}", optimization_profile=profile)


def _frame(bundle: Bundle, side: int, seed: int) -> NDArray[Any]:
    image = structured_image(side, seed)[None]
    if bundle.manifest.io == "uint8":
        return image
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2), dtype=np.float32) / 255


def _side_for(engine: Engine) -> tuple[int, int]:
    """Return the side of the frame to compare on, and the index of the profile for it."""
    for index, profile in enumerate(engine.record.profiles):
        for side in (_MAX_SIDE, *reversed(range(1, _MAX_SIDE))):
            if profile.covers((1, side, side)):
                return side, index
    sizes = "; ".join(map(str, engine.record.profiles))
    raise EngineError(
        f"engine {engine.record.fingerprint} has no profile for a single square frame of up to "
        f"{_MAX_SIDE} pixels ({sizes}); build one with such a profile to verify it"
    )


def _verify_in_subprocess(folder: Path, engine: Engine) -> Verification:
    environment = dict(os.environ)
    environment[_USE_RTX] = "1" if engine.record.variant == "tensorrt-rtx" else "0"
    command = [sys.executable, "-m", __name__, str(folder), engine.record.fingerprint]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    output = (child.stderr.strip() or child.stdout.strip()).splitlines()
    if child.returncode != 0:
        raise EngineError(
            f"engine {engine.record.fingerprint} could not be compared with ONNX Runtime: "
            f"{output[-1] if output else f'the process ended with {child.returncode}'}"
        )
    return read_settings(Verification, read_json(child.stdout.splitlines()[-1].encode()))


def _verify_here(folder: str, fingerprint: str) -> Verification:
    bundle = Bundle.open(folder)
    (engine,) = (e for e in read_engines(bundle) if e.record.fingerprint == fingerprint)
    side, profile = _side_for(engine)
    candidates = {graph: _plan_runner(engine, graph, profile) for graph in bundle.loop.graphs}
    return compare(bundle, candidates, side)


def _import_polygraphy() -> None:
    with needs_extra("tensorrt", "--verify polygraphy"):
        importlib.import_module("polygraphy")


def _quiet() -> AbstractContextManager[object]:
    """Return a context that silences Polygraphy's log; its exceptions remain."""
    from polygraphy.logger import G_LOGGER

    quiet: AbstractContextManager[object] = G_LOGGER.verbosity()
    return quiet


def _tools() -> dict[str, str]:
    names = ("polygraphy", "onnxruntime")
    return {name: str(importlib.import_module(name).__version__) for name in names}


def _all_passed(outputs: list[EngineOutput]) -> bool:
    return bool(outputs) and all(output.passed for output in outputs)


def _max_difference(code: NDArray[Any], expected: NDArray[Any]) -> float | None:
    return _finite(np.abs(code - expected).max())


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(_verify_here(*sys.argv[1:]))))
    except IkcError as failure:
        sys.exit(str(failure))
