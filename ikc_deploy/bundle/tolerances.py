"""How many times what rounding costs may lie between a computation and its reference.

Every limit of an export or an engine is such a factor times a cost that is measured on the networks
at hand, in a computation of its own (see `ikc_deploy.export.parity`): absolute limits fit the
networks that they were chosen for, and on others accept a graph with a broken layer.
"""

from __future__ import annotations

from typing import Final, Literal

WEIGHTS: Final = 6.0
"""For a graph with everything but its weights in float32, against the network with the same
weights: both differ by the order of float32 sums alone (measured: 0.5 to 1.1)."""

WHOLE: Final[dict[Literal["fp32", "fp16", "int8"], float]] = {
    "fp32": WEIGHTS,
    "fp16": 3.0,
    "int8": 16.0,
}
"""For a graph as it is. Which values are rounded, between operations that a runtime fuses, is not
the same in both; and the 8-bit graph's scales are those of its calibration, which codes far from
the right one exceed (measured: float16 0.1 to 0.9, 8 bits 0.5 to 3.5, and 9 where the calibration
had four small images)."""

LOOP: Final = 4.0
"""For the images of the loop, each side on its own codes."""

ENGINE: Final[dict[Literal["fp32", "fp16", "int8"], float]] = {
    "fp32": 16.0,
    "fp16": 3.0,
    "int8": 2.0,
}
"""For an engine against ONNX Runtime on the same graph. In float32 engines sum in other orders than
the reference does. With 8 bits both round the same values, and differ where one falls to the other
side: two ways in which ONNX Runtime computes such a graph differ
by up to 0.8 of the cost (measured)."""

FRAME: Final[dict[Literal["fp32", "fp16", "int8"], float]] = {
    "fp32": 0.501,
    "fp16": 0.5625 + 0.001,
    "int8": 0.501,
}
"""Levels between a frame and the unrounded image of the same graph: half of one, and half of a step
of float16 below 1."""
