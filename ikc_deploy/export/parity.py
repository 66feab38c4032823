"""The parity gate: compares exported graphs with the networks, relative to rounding errors.

Three comparisons, all of the written files in ONNX Runtime (docs/adr/0021):

- *weights*: each graph in float32 arithmetic (see `widening`), with the network that has the same
  rounded weights. They differ only by the order of float32 sums, so a wrong layer is visible.
- *whole*: each graph as it is, with the same network. It also differs by rounding of activations.
- the loop, with each side using its own codes, so that errors accumulate as in use.

The limit is a factor (`tolerances`) times the rounding error that torch measures on the same inputs
(`parity_runs`), independent of the graphs. If a limit is exceeded, no bundle is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.bundle.measurements import Deviation, GraphParity, Int8Parity, Parity, StepParity
from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.bundle.tolerances import FRAME_LEVELS, LOOP, WEIGHTS, WHOLE
from ikc_deploy.errors import ExportError
from ikc_deploy.export.deployable import deployable
from ikc_deploy.export.parity_runs import (
    Outputs,
    Probes,
    frame_levels,
    loop_of_graphs,
    loop_of_networks,
    make_probes,
    run_graphs,
    run_networks,
)
from ikc_deploy.export.rounding import Rounding
from ikc_deploy.networks.loop_networks import LoopNetworks

_EXACT_DB: Final = 130.0
"""PSNR in dB that float32 reaches at the end of the loop."""
_MIN: Final = 2.0**-21
"""Minimum float32 error relative to an output's RMS: a few roundings of the last bit."""


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
    loop, precision = networks.loop, bundle.manifest.precision
    rounding = Rounding(precision, int8.kept if int8 else ())
    rewritten = deployable(networks)
    rounded = {name: rounding.of_weights(module) for name, module in rewritten.items()}

    probes, exact = make_probes(networks)
    float32 = _rounding_errors(run_networks(loop, networks.modules(), probes), exact, exact)
    _check_rewrites(run_networks(loop, rewritten, probes), exact, float32)

    wanted = run_networks(loop, rounded, probes)
    found, _ = run_graphs(bundle, probes, widen=True)
    weights = _deviations(found, wanted, float32, WEIGHTS)

    activations = float32
    found, levels = run_graphs(bundle, probes)
    if precision == "int8":
        found, wanted, exact = map(_for_correct_codes, (found, wanted, exact))
    if precision != "fp32":
        simulated = run_networks(loop, rounded, probes, rounding)
        if precision == "int8":
            simulated = _for_correct_codes(simulated)
        errors = _rounding_errors(simulated, wanted, exact)
        activations = {name: math.hypot(errors[name], float32[name]) for name in loop.graphs}
    whole = _deviations(found, wanted, activations, WHOLE[precision])

    return Parity(
        graphs={name: GraphParity(weights[name], whole[name]) for name in loop.graphs},
        steps=_loop_parity(networks, rounded, rounding, bundle, probes, levels),
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


def _deviations(
    found: Outputs, wanted: Outputs, rounding: Mapping[str, float], factor: float
) -> dict[str, Deviation]:
    """Return the differences of outputs by graph, with what rounding costs."""
    return {
        name: Deviation(_rms(found[name], wanted[name]), rounding[name], factor) for name in wanted
    }


def _rounding_errors(found: Outputs, wanted: Outputs, exact: Outputs) -> dict[str, float]:
    """Return the RMS error of a computation in torch by graph, at least that of float32."""
    zero = {name: [np.zeros_like(array) for array in arrays] for name, arrays in exact.items()}
    return {
        name: max(_rms(found[name], wanted[name]), _MIN * _rms(exact[name], zero[name]))
        for name in exact
    }


def _for_correct_codes(outputs: Outputs) -> Outputs:
    """Return the outputs for correct codes, which come first.

    Only these count in the comparison of whole graphs in INT8: scales are calibrated on states of
    the loop, so with other codes activations are clipped by design. The comparison of weights uses
    all codes in every precision.
    """
    return {name: arrays[:1] for name, arrays in outputs.items()}


def _check_rewrites(deployed: Outputs, exact: Outputs, float32: Mapping[str, float]) -> None:
    """Raise `ExportError` unless the rewritten networks equal the plain ones up to rounding."""
    for name, deviation in _deviations(deployed, exact, float32, WEIGHTS).items():
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
    probes: Probes,
    levels: float,
) -> tuple[StepParity, ...]:
    """Compare the loop of graphs, plain and rounded networks, each on its own codes.

    `levels` is the deviation of frames that is already known; those of a step are at least as far.
    """
    found = loop_of_graphs(bundle, probes)
    exact = loop_of_networks(networks, networks.modules(), probes)
    errors = loop_of_networks(networks, rounded, probes, rounding)
    return tuple(
        StepParity(
            step,
            psnr(sr, wanted),
            # float32 errors depend on the order of sums.
            min(psnr(simulated, wanted), _EXACT_DB),
            max(frame_levels(sr, frame), levels),
            float(np.abs(wanted_code - code).max()),
        )
        for step, ((sr, frame, code), (wanted, wanted_code), (simulated, _)) in enumerate(
            zip(found, exact, errors, strict=True)
        )
    )
