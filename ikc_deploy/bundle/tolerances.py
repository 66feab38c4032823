"""Tolerances between a computation and its reference, as multiples of the error of rounding.

Every limit of an export or an engine is such a factor times an error that is measured on the same
networks in a separate computation (see `ikc_deploy.export.parity`). Absolute limits would fit the
networks that they were chosen for, and accept a graph with a broken layer on others.
"""

from __future__ import annotations

from typing import Final, Literal

WEIGHTS: Final = 6.0
"""Factor for a graph with everything but its weights in float32, against the network with the same
weights: the two differ only by the order of float32 sums (measured: 0.5 to 1.1)."""

WHOLE: Final[dict[Literal["fp32", "fp16", "int8"], float]] = {
    "fp32": WEIGHTS,
    "fp16": 3.0,
    "int8": 16.0,
}
"""Factor for a whole graph, by precision. A runtime fuses operations, so the two computations round
different values. The scales of an INT8 graph are those of its calibration (measured: float16 0.1 to
0.9, INT8 0.5 to 3.5, and 9 after a calibration on four small images)."""

LOOP: Final = 4.0
"""Factor for the images of the loop, where each side uses its own codes."""

ENGINE: Final[dict[Literal["fp32", "fp16", "int8"], float]] = {
    "fp32": 16.0,
    "fp16": 3.0,
    "int8": 2.0,
}
"""Factor for an engine against ONNX Runtime on the same graph, by precision. In float32, engines
sum in another order than the reference. In INT8, both round the same values and differ where one of
them rounds the other way: two ways in which ONNX Runtime computes such a graph differ by up to 0.8
of the error of rounding (measured)."""

FRAME_LEVELS: Final[dict[Literal["fp32", "fp16", "int8"], float]] = {
    "fp32": 0.501,
    "fp16": 0.5625 + 0.001,
    "int8": 0.501,
}
"""Maximum difference in 8-bit levels between a frame and the unrounded image of the same graph, by
precision: half a level, and for float16 also half its step just below 1."""
