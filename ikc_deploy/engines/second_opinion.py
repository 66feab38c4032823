"""Polygraphy's opinion of an engine: the plans against ONNX Runtime, on the machine that runs them.

Each graph gets the same inputs from both, as they arise in the loop, and Polygraphy judges the
outputs; then both run the loop on their own codes, so that errors add up as they would in use.

    python -m ikc_deploy.engines.second_opinion BUNDLE FINGERPRINT     # the result as JSON

Polygraphy takes its flavour of TensorRT from an environment variable, once for the process:
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle import GRAPHS, Bundle, write_manifest
from ikc_deploy.bundle_writing import changed_bundle, check_bundle_folder
from ikc_deploy.engines.toolchain import this_host
from ikc_deploy.errors import EngineError, IkcError, MissingExtraError
from ikc_deploy.evaluation.structured import structured_image
from ikc_deploy.limits import LIMITS, ParityLimits
from ikc_deploy.plans import Engine, read_engines, refusal

VERIFIED_ITERS: Final = 3
"""Corrections in the loop that is compared, as in the parity gate of exports."""

_USE_RTX: Final = "POLYGRAPHY_USE_TENSORRT_RTX"
_LARGEST_SIDE: Final = 128
"""ONNX Runtime computes the reference on the CPU."""

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Output:
    """One output of one graph at one step, both from the same inputs."""

    step: int
    name: str
    max_error: float
    mean_error: float
    passed: bool
    """Polygraphy's verdict."""


@dataclass(frozen=True)
class Step:
    """Both loops after a step, each on its own codes."""

    step: int
    image_db: float
    """PSNR of the two `sr`, peak 1, at most 150 dB."""
    code_error: float


@dataclass(frozen=True)
class Opinion:
    """What the comparison gave."""

    tools: dict[str, str]
    frame: tuple[int, int]
    """Height and width of the LR frame."""
    graphs: dict[str, list[Output]]
    steps: list[Step]
    passed: bool


def verify_engine(bundle: Bundle, engine: Engine) -> dict[str, Any]:
    """Compare `engine` with ONNX Runtime and write the result into the bundle's manifest.

    Returns what was written. Raises `MissingExtraError` without Polygraphy, and `EngineError` that
    says why if the engine does not run on this machine or if it misses the limits of its
    precision; a miss is in the manifest, too.
    """
    reason = refusal(engine, this_host(engine.record.flavour))
    name = engine.record.fingerprint
    if reason:
        raise EngineError(
            f"engine {name} cannot be compared with ONNX Runtime here: {reason}. On its target, "
            f"run: ikc-export --bundle '{bundle.path}' --verify polygraphy"
        )
    _import_polygraphy()
    check_bundle_folder(bundle.path)
    opinion = _ask_child(bundle.path, engine)
    with changed_bundle(bundle.path) as (now, changed):
        verified = now.manifest.verified | {name: opinion}
        write_manifest(changed, replace(now.manifest, verified=verified))
    if not opinion["passed"]:
        limits = LIMITS[bundle.manifest.precision]
        raise EngineError(
            f"engine {name} differs from ONNX Runtime by more than {limits.image_db:g} dB or |dh| "
            f"{limits.code_error:g} allow; do not ship it. Its figures are in the manifest of "
            f"'{bundle.path}'"
        )
    return opinion


def runnable_engines(bundle: Bundle) -> list[Engine]:
    """The engines of `bundle` that run on this machine.

    Raises `EngineError` that says why of each if none does.
    """
    judged = [(e, refusal(e, this_host(e.record.flavour))) for e in read_engines(bundle)]
    runnable = [engine for engine, reason in judged if not reason]
    if not runnable:
        told = [f"{engine.record.fingerprint}: {reason}" for engine, reason in judged]
        raise EngineError(
            f"'{bundle.path}' has no engine that can be compared with ONNX Runtime here: "
            + ("; ".join(told) or "it has none at all; add one with --engine")
        )
    return runnable


def compare(bundle: Bundle, candidates: Mapping[str, Any], side: int) -> Opinion:
    """The graphs of `bundle` in ONNX Runtime against `candidates`, Polygraphy runners by graph.

    On one structured LR frame of `side` x `side`.
    """
    references = {graph: _reference(bundle, graph) for graph in GRAPHS}
    frame = _frame(bundle, side)
    limits = LIMITS[bundle.manifest.precision]
    with _quiet():
        with ExitStack() as stack:
            for runner in (*references.values(), *candidates.values()):
                stack.enter_context(runner)
            feeds, wanted = _loop(references, frame)
            _, found = _loop(candidates, frame)
        outputs = {
            graph: _judge((references[graph], candidates[graph]), feeds[graph], limits)
            for graph in GRAPHS
        }
    steps = [
        Step(step, _psnr(ours["sr"], theirs["sr"]), _largest(ours["code"], theirs["code"]))
        for step, (ours, theirs) in enumerate(zip(found, wanted, strict=True))
    ]
    passed = all(output.passed for graph in GRAPHS for output in outputs[graph]) and all(
        step.image_db >= limits.image_db and step.code_error <= limits.code_error for step in steps
    )
    return Opinion(_tools(), (side, side), outputs, steps, passed)


def _loop(
    runners: Mapping[str, Any], frame: NDArray[Any]
) -> tuple[dict[str, list[Tensors]], list[Tensors]]:
    """Algorithm 1: what each graph was fed, by step, and the `sr` and `code` of every step."""
    feeds: dict[str, list[Tensors]] = {graph: [] for graph in GRAPHS}
    steps: list[Tensors] = []

    def infer(graph: str, feed: Tensors) -> Tensors:
        feeds[graph].append(feed)
        # Runners reuse their output buffers.
        return {name: np.array(array) for name, array in runners[graph].infer(feed).items()}

    code = infer("predictor", {"lr": frame})["code"]
    for step in range(VERIFIED_ITERS + 1):
        sr = infer("sftmd", {"lr": frame, "code": code})["sr"]
        steps.append({"sr": sr, "code": code})
        if step < VERIFIED_ITERS:
            code = infer("corrector", {"sr": sr, "code": code})["next_code"]
    return feeds, steps


def _judge(runners: tuple[Any, Any], feeds: list[Tensors], limits: ParityLimits) -> list[Output]:
    """Polygraphy's comparison of one graph; codes by their largest error, images by their mean."""
    from polygraphy.comparator import Comparator, SimpleCompareFunc

    rms = 10 ** (-limits.image_db / 20)
    codes = dict.fromkeys(("code", "next_code"), limits.code_error)
    verdict = SimpleCompareFunc(
        rtol=0.0,
        atol={"sr": rms, "frame": 255 * rms} | codes,
        check_error_stat={"sr": "mean", "frame": "mean"} | dict.fromkeys(codes, "max"),
    )
    results = Comparator.run(list(runners), data_loader=feeds)
    pairs = zip(*(results[runner.name] for runner in runners), strict=True)
    # It also divides by the outputs, which may be 0, for relative errors that nobody asked for.
    with np.errstate(divide="ignore", invalid="ignore"):
        return [
            Output(step, name, result.max_absdiff, result.mean_absdiff, bool(result))
            for step, pair in enumerate(pairs)
            for name, result in verdict(*pair).items()
        ]


def _reference(bundle: Bundle, graph: str) -> Any:
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    session = SessionFromOnnx(str(bundle.graph(graph)), providers=["CPUExecutionProvider"])
    return OnnxrtRunner(session, name=f"onnxruntime-{graph}")


def _plan_runner(engine: Engine, graph: str, profile: int) -> Any:
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    plan = EngineFromBytes(engine.plan(graph))
    return TrtRunner(plan, name=f"{engine.record.flavour}-{graph}", optimization_profile=profile)


def _frame(bundle: Bundle, side: int) -> NDArray[Any]:
    image = structured_image(side, seed=0)[None]
    if bundle.manifest.io == "uint8":
        return image
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2), dtype=np.float32) / 255


def _side_for(engine: Engine) -> tuple[int, int]:
    """The side of the frame to compare on, and the profile that takes it."""
    for index, profile in enumerate(engine.record.profiles):
        for side in (_LARGEST_SIDE, *reversed(range(1, _LARGEST_SIDE))):
            if profile.covers((1, side, side)):
                return side, index
    sizes = "; ".join(map(str, engine.record.profiles))
    raise EngineError(
        f"engine {engine.record.fingerprint} takes no single square frame of up to "
        f"{_LARGEST_SIDE} pixels ({sizes}); build one that does to compare it"
    )


def _ask_child(folder: Path, engine: Engine) -> dict[str, Any]:
    environment = dict(os.environ)
    environment[_USE_RTX] = "1" if engine.record.flavour == "tensorrt-rtx" else "0"
    command = [sys.executable, "-m", __name__, str(folder), engine.record.fingerprint]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = (child.stderr.strip() or child.stdout.strip()).splitlines()
    if child.returncode != 0:
        raise EngineError(
            f"engine {engine.record.fingerprint} could not be compared with ONNX Runtime: "
            f"{said[-1] if said else f'the process ended with {child.returncode}'}"
        )
    opinion: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return opinion


def _answer(folder: str, fingerprint: str) -> Opinion:
    bundle = Bundle.open(folder)
    (engine,) = (e for e in read_engines(bundle) if e.record.fingerprint == fingerprint)
    side, profile = _side_for(engine)
    candidates = {graph: _plan_runner(engine, graph, profile) for graph in GRAPHS}
    return compare(bundle, candidates, side)


def _import_polygraphy() -> None:
    try:
        importlib.import_module("polygraphy")
    except ModuleNotFoundError as error:
        raise MissingExtraError("polygraphy", "tensorrt", "--verify polygraphy") from error


def _quiet() -> AbstractContextManager[object]:
    """Polygraphy's log says nothing below what it raises."""
    from polygraphy.logger import G_LOGGER

    quiet: AbstractContextManager[object] = G_LOGGER.verbosity()
    return quiet


def _tools() -> dict[str, str]:
    names = ("polygraphy", "onnxruntime")
    return {name: str(importlib.import_module(name).__version__) for name in names}


def _psnr(image: NDArray[Any], expected: NDArray[Any]) -> float:
    error = float(np.mean((image.astype(np.float64) - expected.astype(np.float64)) ** 2))
    return min(150.0, -10 * math.log10(max(error, 1e-30))) if math.isfinite(error) else -math.inf


def _largest(code: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(code - expected).max())


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(_answer(*sys.argv[1:]))))
    except IkcError as failure:
        sys.exit(str(failure))
