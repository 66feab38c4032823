"""The parity gate: compares exported graphs with the networks, relative to rounding errors.

Three comparisons, all of the written files in ONNX Runtime (docs/adr/0021):

- *weights*: each graph in float32 arithmetic (see `widening`), with the network that has the same
  rounded weights. They differ only by the order of float32 sums, so a wrong layer is visible.
- *whole*: each graph as it is, with the same network. It also differs by rounding of activations.
- the loop, with each side using its own codes, so that errors accumulate as in use.

In the first two, both sides get the same inputs: LR frames with correct codes, and with codes near
both ends of the range, far from the loop's fixed point, where the code has to change. The limit is
a factor (`tolerances`) times the rounding error that torch measures on the same inputs, independent
of the graphs. If a limit is exceeded, no bundle is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.bundle.measurements import Deviation, GraphParity, Int8Parity, Parity, StepParity
from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.bundle.tolerances import FRAME_LEVELS, LOOP, WEIGHTS, WHOLE
from ikc_deploy.errors import ExportError
from ikc_deploy.export.deployable import deployable
from ikc_deploy.export.rounding import Rounding
from ikc_deploy.export.widening import widened
from ikc_deploy.imaging.degrade import degrade_gaussian
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.loops import CODE, FRAME, LR, NEXT_CODE, SR, Loop
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.runtime.backends.backend_choice import open_backend
from ikc_deploy.runtime.backends.onnx_sessions import EXACT_INT8
from ikc_deploy.runtime.frames import frame_shape
from ikc_deploy.runtime.session import Session

PARITY_ITERS: Final = 3
"""Number of corrections in the compared loop."""

FAR: Final = (0.1, 0.9)
"""Sigmas of codes far from the fixed point, as shares of the sigma range."""

_SIDE: Final = 24
"""Side of LR frames, in pixels."""
_FRAMES: Final = 6
"""Number of frames for a start graph, which has few outputs per frame."""
_CORRECTED: Final = 2
"""Number of frames for the other graphs; each frame is used with several codes."""
_SIGMAS: Final = (0.3, 0.8, 0.5, 0.2, 0.65, 0.4)
"""Sigmas of the blurs, as shares of the sigma range."""
_EXACT_DB: Final = 130.0
"""PSNR in dB that float32 reaches at the end of the loop."""
_MIN: Final = 2.0**-21
"""Minimum float32 error relative to an output's RMS: a few roundings of the last bit."""

Outputs = dict[str, list[NDArray[Any]]]
"""Outputs (codes or `sr`) by graph, for each of its inputs."""


@dataclass(frozen=True)
class _Probes:
    """Inputs of the comparisons."""

    lr: NDArray[np.uint8]
    """LR frames `[_FRAMES,H,W,3]`."""
    codes: list[Tensor]
    """Kernel codes `[_CORRECTED,code_size]` each, float64."""
    srs: list[Tensor]
    """SR images for these codes, as input of the update graph, float64."""

    @property
    def planes(self) -> Tensor:
        """LR frames as input of the networks: `[_FRAMES,3,H,W]` float64 in [0,1]."""
        return torch.from_numpy(self.lr.transpose(0, 3, 1, 2).astype(np.float64) / 255)


def measure_parity(
    networks: LoopNetworks, bundle: Bundle, int8: Int8Parity | None = None
) -> Parity:
    """Measure the differences between the graphs of a written bundle and their networks.

    Args:
        networks: Networks on the CPU, in evaluation mode.
        bundle: Bundle of their graphs.
        int8: Measurement of the quantisation, for INT8 bundles.

    Raises:
        ExportError: ONNX Runtime cannot load a graph, or a rewrite is wrong.
    """
    precision = bundle.manifest.precision
    rounding = Rounding(precision, int8.kept if int8 else ())
    loop = networks.loop
    probes, exact = _make_probes(networks)
    deployed = deployable(networks)
    rounded = {name: rounding.of_weights(module) for name, module in deployed.items()}
    wanted = _by_torch(loop, rounded, probes)
    float32 = _rounding_errors(_by_torch(loop, networks.modules(), probes), exact, exact)
    _check_rewrites(_by_torch(loop, deployed, probes), exact, float32)
    widened_graphs = {name: widened(bundle.graph_bytes(name)) for name in loop.graphs}
    found, _ = _by_graphs(bundle, widened_graphs, probes, np.float32)
    activations = float32
    if precision != "fp32":
        errors = _rounding_errors(
            _whole_outputs(_by_torch(loop, rounded, probes, rounding), precision),
            _whole_outputs(wanted, precision),
            _whole_outputs(exact, precision),
        )
        activations = {name: math.hypot(errors[name], float32[name]) for name in loop.graphs}
    graphs = {name: bundle.graph_bytes(name) for name in loop.graphs}
    whole, frame_levels = _by_graphs(bundle, graphs, probes, _sr_dtype(bundle))
    return Parity(
        graphs={
            name: GraphParity(
                Deviation(_rms(found[name], wanted[name]), float32[name], WEIGHTS),
                Deviation(
                    _rms(
                        _whole_outputs(whole, precision)[name],
                        _whole_outputs(wanted, precision)[name],
                    ),
                    activations[name],
                    WHOLE[precision],
                ),
            )
            for name in loop.graphs
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
        if not s.frame_levels <= FRAME_LEVELS[precision]
    ]
    if failed:
        raise ExportError(
            f"the {precision} graphs differ from the networks by more than rounding does "
            f"({'; '.join(failed)}). No bundle was written"
            + ("; try --fp32" if precision != "fp32" else "")
        )


def _make_probes(networks: LoopNetworks) -> tuple[_Probes, Outputs]:
    """Return the inputs of all comparisons, and the outputs of the networks in float64."""
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
        # The codes of the start graph; without one, the codes of the blurs.
        sigmas = [low + share * (high - low) for share in _SIGMAS]
        codes = [torch.from_numpy(networks.basis.code_of_sigma(sigmas)).double()]
        if networks.loop.start is not None:
            codes = [double[networks.loop.start.name](start.planes)]
        sigmas = [low + share * (high - low) for share in FAR]
        far = [torch.from_numpy(networks.basis.code_of_sigma(sigma)).double() for sigma in sigmas]
        codes = [codes[0][:_CORRECTED], *(each.expand(_CORRECTED, -1) for each in far)]
        srs = [
            _update_input(
                networks.loop, double[networks.loop.image.name](start.planes[:_CORRECTED], each)
            )
            for each in codes
        ]
    probes = _Probes(lr, codes, srs)
    return probes, _by_torch(networks.loop, double, probes, dtype=torch.float64)


def _update_input(loop: Loop, image: Tensor) -> Tensor:
    """Return images as the update graph of a loop reads them."""
    return image.clamp(0.0, 1.0) if loop.clamped else image


def _by_torch(
    loop: Loop,
    modules: Mapping[str, nn.Module],
    probes: _Probes,
    rounding: Rounding | None = None,
    dtype: torch.dtype = torch.float32,
) -> Outputs:
    """Run torch modules in `dtype`; with `rounding`, activations are rounded."""

    def apply(name: str, values: Mapping[str, Tensor]) -> Tensor:
        inputs = [values[each].to(dtype) for each in loop.graph(name).inputs]
        with rounding.of_activations(modules[name]) if rounding else nullcontext():
            output: Tensor = modules[name](*inputs)
        if name != loop.image.name:
            return output
        image = _update_input(loop, output)
        return rounding.of_image(image) if rounding else image

    outputs: Outputs = {}
    lr = probes.planes[:_CORRECTED]
    with torch.no_grad():
        if loop.start is not None:
            outputs[loop.start.name] = [apply(loop.start.name, {LR: probes.planes}).numpy()]
        for name in (loop.image.name, loop.update.name):
            outputs[name] = [
                apply(name, {LR: lr, SR: sr, CODE: code}).numpy()
                for sr, code in zip(probes.srs, probes.codes, strict=True)
            ]
    return outputs


def _by_graphs(
    bundle: Bundle, graphs: Mapping[str, bytes], probes: _Probes, sr_dtype: type[np.generic]
) -> tuple[Outputs, float]:
    """Run graphs in ONNX Runtime; return outputs and the largest deviation of frames from `sr`."""
    loop = bundle.loop
    lr: NDArray[Any] = probes.lr
    if bundle.manifest.io == "float":
        lr = np.ascontiguousarray(lr.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    sessions = {name: _session(model) for name, model in graphs.items()}
    outputs: Outputs = {}
    if loop.start is not None:
        outputs[loop.start.name] = sessions[loop.start.name].run([CODE], {LR: lr})
    feeds = [
        {
            LR: lr[:_CORRECTED],
            SR: sr.numpy().astype(sr_dtype),
            CODE: np.ascontiguousarray(code.numpy(), np.float32),
        }
        for sr, code in zip(probes.srs, probes.codes, strict=True)
    ]
    levels = 0.0
    outputs[loop.image.name], outputs[loop.update.name] = [], []
    for feed in feeds:
        names = loop.outputs(loop.image.name, bundle.manifest.io)
        inputs = {name: feed[name] for name in loop.image.inputs}
        sr, *shown = sessions[loop.image.name].run(list(names), inputs)
        outputs[loop.image.name].append(sr)
        if FRAME in names:
            levels = max(levels, _frame_levels(sr, shown[0]))
        inputs = {name: feed[name] for name in loop.update.inputs}
        outputs[loop.update.name] += sessions[loop.update.name].run([NEXT_CODE], inputs)
    return outputs, levels


def _session(model: bytes) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_session_config_entry(*EXACT_INT8)
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ExportError(f"ONNX Runtime cannot load a written graph: {error}") from error


def _frame_levels(sr: NDArray[Any], frame: NDArray[Any]) -> float:
    """Return the largest difference of frames, of either type, from `sr` in 8-bit levels."""
    levels = 255 * sr.astype(np.float64).clip(0.0, 1.0)
    if frame.dtype == np.uint8:
        return float(np.abs(frame - levels.transpose(0, 2, 3, 1)).max())
    return float(np.abs(255 * frame.astype(np.float64) - levels).max())


def _sr_dtype(bundle: Bundle) -> type[np.generic]:
    half = bundle.manifest.precision == "fp16" and bundle.manifest.io == "uint8"
    return np.float16 if half else np.float32


def _rounding_errors(found: Outputs, wanted: Outputs, exact: Outputs) -> dict[str, float]:
    """Return the RMS error of a computation in torch by graph, at least that of float32."""
    zero = {name: [np.zeros_like(array) for array in arrays] for name, arrays in exact.items()}
    return {
        name: max(_rms(found[name], wanted[name]), _MIN * _rms(exact[name], zero[name]))
        for name in exact
    }


def _whole_outputs(outputs: Outputs, precision: Precision) -> Outputs:
    """Return the outputs that count in the comparison of whole graphs.

    For INT8 these are only the outputs for correct codes, which come first: scales are calibrated
    on states of the loop, so with other codes activations are clipped by design. The comparison of
    weights uses all codes in every precision.
    """
    if precision != "int8":
        return outputs
    return {name: arrays[:1] for name, arrays in outputs.items()}


def _check_rewrites(deployed: Outputs, exact: Outputs, float32: Mapping[str, float]) -> None:
    """Raise `ExportError` unless the rewritten networks equal the plain ones up to rounding."""
    for name in exact:
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
    networks: LoopNetworks,
    rounded: Mapping[str, nn.Module],
    rounding: Rounding,
    bundle: Bundle,
    probes: _Probes,
    frame_levels: float,
) -> list[StepParity]:
    """Compare the loop of graphs, plain and rounded networks, each on its own codes."""
    lr = probes.lr[:_CORRECTED]
    planes = probes.planes[:_CORRECTED].float()
    float_planes = np.ascontiguousarray(planes.numpy())
    found = _loop_of_graphs(bundle, lr if bundle.manifest.io == "uint8" else float_planes)
    first = None
    if networks.loop.start is None:
        first = torch.from_numpy(networks.basis.delta_code()).expand(_CORRECTED, -1)
    exact = _loop_of_modules(networks.loop, networks.modules(), planes, first, None)
    errors = _loop_of_modules(networks.loop, rounded, planes, first, rounding)
    steps = []
    for step in range(PARITY_ITERS + 1):
        (sr, frame, code), (wanted, wanted_code) = found[step], exact[step]
        levels = _frame_levels(sr, frame)
        steps.append(
            StepParity(
                step,
                psnr(sr, wanted),
                # float32 errors depend on the order of sums.
                min(psnr(errors[step][0], wanted), _EXACT_DB),
                max(levels, frame_levels),
                float(np.abs(wanted_code - code).max()),
            )
        )
    return steps


def _loop_of_modules(
    loop: Loop,
    modules: Mapping[str, nn.Module],
    planes: Tensor,
    first: Tensor | None,
    rounding: Rounding | None,
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return `sr` and code of every step."""

    def apply(name: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with rounding.of_activations(modules[name]) if rounding else nullcontext():
            output: Tensor = modules[name](*inputs.values())
        if name == loop.image.name:
            image = _update_input(loop, output)
            return {SR: rounding.of_image(image) if rounding else image}
        return {NEXT_CODE if name == loop.update.name else CODE: output}

    with torch.no_grad():
        steps = loop.walk(apply, planes, first, PARITY_ITERS)
        return [(images[SR].numpy(), code.numpy()) for code, images in steps]


def _loop_of_graphs(
    bundle: Bundle, batch: NDArray[Any]
) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Return `sr`, frame and code of every step of the written files in ONNX Runtime."""
    backend = open_backend("onnxruntime", bundle)
    shape = frame_shape(batch, bundle.manifest.io)
    session = Session(backend, bundle, shape, PARITY_ITERS)
    images: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def keep(_: int) -> None:
        images.append((backend.download(session.sr), backend.download(session.frame)))

    session.upload(batch)
    session.blind().run(keep)
    codes = [backend.download(code) for code in session.codes]
    backend.close()
    return [(*image, code) for image, code in zip(images, codes, strict=True)]
