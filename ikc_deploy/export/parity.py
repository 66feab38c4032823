"""The parity gate: written graphs compared with the plain networks, relative to rounding errors.

Three comparisons, all on the written files in ONNX Runtime (docs/adr/0021):

- *weights*: each graph in float32 arithmetic (see `widening`) against the network with the same
  rounded weights. They differ only by the order of float32 sums, so one wrong layer is visible.
- *whole*: each graph unchanged, against the same. It may differ by the rounding of the activations.
- the loop, each side on its own codes, so errors accumulate as in use.

In the first two, both sides get the same inputs: LR frames with correct codes, and with codes at
both ends of the range, far from the loop's fixed point, where the corrector has to move. The limit
is a factor (`tolerances`) times the rounding error that torch measures on the same inputs, without
the graphs. If a limit is exceeded, no bundle is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.bundle.manifest import GRAPHS, Bundle, Precision
from ikc_deploy.bundle.measurements import Deviation, GraphParity, Int8Parity, Parity, StepParity
from ikc_deploy.bundle.tolerances import FRAME, LOOP, WEIGHTS, WHOLE
from ikc_deploy.errors import ExportError
from ikc_deploy.export.rewrites import (
    deployable_corrector,
    deployable_predictor,
    deployable_sftmd,
)
from ikc_deploy.export.rounding import Rounding
from ikc_deploy.export.widening import widened
from ikc_deploy.imaging.degrade import degrade_gaussian
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.runtime.backends import open_backend
from ikc_deploy.runtime.backends.onnx_sessions import EXACT_INT8
from ikc_deploy.runtime.frames import frame_shape
from ikc_deploy.runtime.session import Session, run

PARITY_ITERS: Final = 3
"""Number of corrections in the compared loop."""

FAR: Final = (0.1, 0.9)
"""Positions of codes far from the fixed point, as shares of the sigma range."""

_SIDE: Final = 24
"""Side of LR frames, in pixels."""
_FRAMES: Final = 6
"""Number of frames for the predictor, which returns few numbers per frame."""
_CORRECTED: Final = 2
"""Number of frames for the other two networks; each is used with several codes."""
_SIGMAS: Final = (0.3, 0.8, 0.5, 0.2, 0.65, 0.4)
"""Sigmas of the blurs, as shares of the sigma range."""
_EXACT_DB: Final = 130.0
"""PSNR in dB that float32 reaches at the end of the loop."""
_MIN: Final = 2.0**-21
"""Smallest float32 error relative to an output's RMS: a few roundings of the last bit."""

Outputs = dict[str, list[NDArray[Any]]]
"""Outputs of each graph for each of its inputs: codes, or `sr`."""


@dataclass(frozen=True)
class _Probes:
    """Inputs of the comparisons."""

    lr: NDArray[np.uint8]
    """LR frames `[_FRAMES,H,W,3]`."""
    codes: list[Tensor]
    """Kernel codes `[_CORRECTED,code_size]` each, float64."""
    srs: list[Tensor]
    """SR images under these codes, float64."""

    @property
    def planes(self) -> Tensor:
        """LR frames as input of the networks: `[_FRAMES,3,H,W]` float64 in [0,1]."""
        return torch.from_numpy(self.lr.transpose(0, 3, 1, 2).astype(np.float64) / 255)


def measure_parity(networks: IkcNetworks, bundle: Bundle, int8: Int8Parity | None = None) -> Parity:
    """Return the differences of the graphs of a written bundle from their networks.

    Args:
        networks: Networks on the CPU, in evaluation mode.
        bundle: Bundle of their graphs.
        int8: Measurement of the quantisation, for INT8 bundles.

    Raises:
        ExportError: ONNX Runtime cannot load a graph, or a rewrite is wrong.
    """
    precision = bundle.manifest.precision
    rounding = Rounding(precision, int8.kept if int8 else ())
    probes, exact = _exact(networks)
    plain = _modules(networks.predictor, networks.sftmd, networks.corrector)
    deployed = _modules(
        deployable_predictor(networks.predictor),
        deployable_sftmd(networks.sftmd),
        deployable_corrector(networks.corrector),
    )
    rounded = {name: rounding.of_weights(module) for name, module in deployed.items()}
    wanted = _by_torch(rounded, probes)
    float32 = _costs(_by_torch(plain, probes), exact, exact)
    _check_rewrites(_by_torch(deployed, probes), exact, float32)
    widened_graphs = {name: widened(bundle.graph_bytes(name)) for name in GRAPHS}
    found, _ = _by_graphs(bundle, widened_graphs, probes, np.float32)
    activations = float32
    if precision != "fp32":
        costs = _costs(
            _judged_whole(_by_torch(rounded, probes, rounding), precision),
            _judged_whole(wanted, precision),
            _judged_whole(exact, precision),
        )
        activations = {name: math.hypot(costs[name], float32[name]) for name in GRAPHS}
    graphs = {name: bundle.graph_bytes(name) for name in GRAPHS}
    whole, frame_levels = _by_graphs(bundle, graphs, probes, _sr_dtype(bundle))
    return Parity(
        graphs={
            name: GraphParity(
                Deviation(_rms(found[name], wanted[name]), float32[name], WEIGHTS),
                Deviation(
                    _rms(
                        _judged_whole(whole, precision)[name],
                        _judged_whole(wanted, precision)[name],
                    ),
                    activations[name],
                    WHOLE[precision],
                ),
            )
            for name in GRAPHS
        },
        steps=tuple(_loop_parity(networks, rounded, rounding, bundle, probes, frame_levels)),
        int8=int8,
    )


def check_parity(parity: Parity, precision: Precision) -> None:
    """Raise `ExportError` if graphs differ from their networks by more than rounding.

    The message lists the differences; NaN always counts as one.
    """
    failed = [
        f"{name}, {what}: {deviation.found:.2g}, but rounding costs {deviation.rounding:.2g}"
        for name, graph in parity.graphs.items()
        for what, deviation in (("weights", graph.weights), ("whole", graph.whole))
        if not deviation.passed
    ]
    slack = 20 * math.log10(LOOP)
    failed += [
        f"step {s.step}: {s.image_db:.1f} dB, but rounding costs {s.rounding_db:.1f} dB"
        for s in parity.steps
        if not s.image_db >= s.rounding_db - slack
    ]
    failed += [
        f"step {s.step}: frames differ by {s.frame_levels:.2f} levels from their own image"
        for s in parity.steps
        if not s.frame_levels <= FRAME[precision]
    ]
    if failed:
        raise ExportError(
            f"the {precision} graphs differ from the networks by more than rounding does "
            f"({'; '.join(failed)}). No bundle was written"
            + ("; try --fp32" if precision != "fp32" else "")
        )


def _exact(networks: IkcNetworks) -> tuple[_Probes, Outputs]:
    """Return the inputs of all comparisons, and the outputs of the plain networks in float64."""
    settings = networks.architecture
    low, high = settings.sigma_range
    lr = np.stack(
        [
            degrade_gaussian(
                structured_image(_SIDE * settings.scale, seed),
                low + _SIGMAS[seed] * (high - low),
                settings.scale,
            )
            for seed in range(_FRAMES)
        ]
    )
    double = {name: deepcopy(module).double() for name, module in networks.modules().items()}
    start = _Probes(lr, [], [])
    with torch.no_grad():
        code = double["predictor"](start.planes)
        planes = start.planes[:_CORRECTED]
        sigmas = [low + share * (high - low) for share in FAR]
        far = [torch.from_numpy(networks.basis.code_of_sigma(sigma)).double() for sigma in sigmas]
        codes = [code[:_CORRECTED], *(each.expand(_CORRECTED, -1) for each in far)]
        srs = [double["sftmd"](planes, each) for each in codes]
        after = [double["corrector"](sr, each) for sr, each in zip(srs, codes, strict=True)]
    outputs = {
        "predictor": [code.numpy()],
        "sftmd": [sr.numpy() for sr in srs],
        "corrector": [each.numpy() for each in after],
    }
    return _Probes(lr, codes, srs), outputs


def _modules(predictor: nn.Module, sftmd: nn.Module, corrector: nn.Module) -> dict[str, nn.Module]:
    return {"predictor": predictor, "sftmd": sftmd, "corrector": corrector}


def _by_torch(
    modules: Mapping[str, nn.Module], probes: _Probes, rounding: Rounding | None = None
) -> Outputs:
    """Return the outputs of float32 modules; with `rounding`, activations are rounded."""

    def mode(name: str) -> AbstractContextManager[object]:
        return rounding.of_activations(modules[name]) if rounding else nullcontext()

    planes = probes.planes.float()
    codes = [code.float() for code in probes.codes]
    srs = [sr.float() for sr in probes.srs]
    with torch.no_grad():
        with mode("predictor"):
            first = modules["predictor"](planes)
        with mode("sftmd"):
            images = [modules["sftmd"](planes[:_CORRECTED], code) for code in codes]
        with mode("corrector"):
            after = [modules["corrector"](*pair) for pair in zip(srs, codes, strict=True)]
        images = [image.clamp(0.0, 1.0) for image in images]
        if rounding:
            images = [rounding.of_image(image) for image in images]
    return {
        "predictor": [first.numpy()],
        "sftmd": [image.numpy() for image in images],
        "corrector": [code.numpy() for code in after],
    }


def _by_graphs(
    bundle: Bundle, graphs: Mapping[str, bytes], probes: _Probes, sr_dtype: type[np.generic]
) -> tuple[Outputs, float]:
    """Return the outputs of graphs, and the largest difference of frames from `sr` in levels."""
    lr: NDArray[Any] = probes.lr
    if bundle.manifest.io == "float":
        lr = np.ascontiguousarray(lr.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    codes = [np.ascontiguousarray(code.numpy(), np.float32) for code in probes.codes]
    sessions = {name: _session(model) for name, model in graphs.items()}
    (first,) = sessions["predictor"].run(["code"], {"lr": lr})
    feeds = [{"lr": lr[:_CORRECTED], "code": code} for code in codes]
    images, levels = [], 0.0
    for feed in feeds:
        if bundle.manifest.io == "float":
            images += sessions["sftmd"].run(["sr"], feed)
            continue
        sr, frame = sessions["sftmd"].run(["sr", "frame"], feed)
        images.append(sr)
        levels = max(levels, _frame_levels(sr, frame))
    after = [
        sessions["corrector"].run(["next_code"], {"sr": sr.numpy().astype(sr_dtype), "code": code})
        for sr, code in zip(probes.srs, codes, strict=True)
    ]
    outputs = {"predictor": [first], "sftmd": images, "corrector": [code for (code,) in after]}
    return outputs, levels


def _session(model: bytes) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_session_config_entry(*EXACT_INT8)
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ExportError(f"ONNX Runtime cannot load a written graph: {error}") from error


def _frame_levels(sr: NDArray[Any], frame: NDArray[np.uint8]) -> float:
    levels = 255 * sr.astype(np.float64).transpose(0, 2, 3, 1)
    return float(np.abs(frame - levels).max())


def _sr_dtype(bundle: Bundle) -> type[np.generic]:
    half = bundle.manifest.precision == "fp16" and bundle.manifest.io == "uint8"
    return np.float16 if half else np.float32


def _costs(found: Outputs, wanted: Outputs, exact: Outputs) -> dict[str, float]:
    """Return the RMS error of a computation in torch by graph, at least that of float32."""
    zero = {name: [np.zeros_like(array) for array in exact[name]] for name in GRAPHS}
    return {
        name: max(_rms(found[name], wanted[name]), _MIN * _rms(exact[name], zero[name]))
        for name in GRAPHS
    }


def _judged_whole(outputs: Outputs, precision: Precision) -> Outputs:
    """Return the outputs by which a graph is judged with its rounded activations.

    With 8 bits those under the right codes alone, which come first: scales are calibrated on the
    states of the loop, and under codes far from them activations are clipped by design. The weights
    are compared under all codes in every precision.
    """
    if precision != "int8":
        return outputs
    return {name: arrays[:1] for name, arrays in outputs.items()}


def _check_rewrites(deployed: Outputs, exact: Outputs, float32: Mapping[str, float]) -> None:
    """Raise `ExportError` unless the rewritten networks equal the plain ones up to rounding."""
    for name in GRAPHS:
        deviation = Deviation(_rms(deployed[name], exact[name]), float32[name], WEIGHTS)
        if not deviation.passed:
            raise ExportError(
                f"the rewritten {name} differs from the network by {deviation.found:.2g}, "
                f"but float32 costs {deviation.rounding:.2g}. No bundle was written"
            )


def _rms(found: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]]) -> float:
    squares = [
        np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
        for one, other in zip(found, wanted, strict=True)
    ]
    return math.sqrt(float(np.mean(squares)))


def _loop_parity(
    networks: IkcNetworks,
    rounded: Mapping[str, nn.Module],
    rounding: Rounding,
    bundle: Bundle,
    probes: _Probes,
    frame_levels: float,
) -> list[StepParity]:
    """Compare Algorithm 1 of graphs, plain and rounded networks, each on its own codes."""
    lr = probes.lr[:_CORRECTED]
    planes = probes.planes[:_CORRECTED].float()
    float_planes = np.ascontiguousarray(planes.numpy())
    found = _loop_of_graphs(bundle, lr if bundle.manifest.io == "uint8" else float_planes)
    exact = _loop_of_modules(networks.modules(), planes, None)
    costs = _loop_of_modules(rounded, planes, rounding)
    steps = []
    for step in range(PARITY_ITERS + 1):
        (sr, frame, code), (wanted, wanted_code) = found[step], exact[step]
        levels = _frame_levels(sr, frame) if bundle.manifest.io == "uint8" else 0.0
        steps.append(
            StepParity(
                step,
                psnr(sr, wanted),
                # float32 errors depend on the order of sums.
                min(psnr(costs[step][0], wanted), _EXACT_DB),
                max(levels, frame_levels),
                float(np.abs(wanted_code - code).max()),
            )
        )
    return steps


def _loop_of_modules(
    modules: Mapping[str, nn.Module], planes: Tensor, rounding: Rounding | None
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return `sr` and code of every step."""

    def apply(name: str, *inputs: Tensor) -> Tensor:
        with rounding.of_activations(modules[name]) if rounding else nullcontext():
            output: Tensor = modules[name](*inputs)
        if name != "sftmd":
            return output
        image = output.clamp(0.0, 1.0)
        return rounding.of_image(image) if rounding else image

    steps = []
    with torch.no_grad():
        code = apply("predictor", planes)
        for _ in range(PARITY_ITERS + 1):
            sr = apply("sftmd", planes, code)
            steps.append((sr.numpy(), code.numpy()))
            code = apply("corrector", sr, code)
    return steps


def _loop_of_graphs(
    bundle: Bundle, batch: NDArray[Any]
) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Return `sr`, frame and code of every step of the written files in ONNX Runtime."""
    backend = open_backend("onnxruntime", bundle)
    shape = frame_shape(batch, bundle.manifest.io)
    session = Session(backend, bundle.manifest, shape, PARITY_ITERS)
    images: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def keep(_: int) -> None:
        images.append((backend.download(session.sr), backend.download(session.frame)))

    backend.upload(batch, session.lr)
    run(backend, session.blind(), keep)
    codes = [backend.download(code) for code in session.codes]
    backend.close()
    return [(*image, code) for image, code in zip(images, codes, strict=True)]


def psnr(image: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the PSNR in dB, peak 1, at most 150; minus infinity if a value is not finite."""
    error = float(np.mean((image.astype(np.float64) - expected.astype(np.float64)) ** 2))
    if not math.isfinite(error):
        return -math.inf
    return min(150.0, -10 * math.log10(max(error, 1e-30)))
