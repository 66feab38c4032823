"""A bundle of hand-made graphs whose every output is known: F repeats pixels.

P always answers `FIRST_SIGMA`, C takes one step of `CORRECTION` from one code to the next, and F
adds `tint` and ten levels for each such step, so that the images of a loop differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray

from ikc_deploy import Bundle
from tests.sealing import BASIS, SCALE, hand_made_bundle

FIRST_SIGMA: Final = 1.0
LEVELS: Final = 10
FIRST: Final = BASIS.code_of_sigma(FIRST_SIGMA)
CORRECTION: Final = BASIS.code_of_sigma(1.5) - FIRST

_HEADER = '<ir_version: 8, opset_import: ["": 18]>'
_GRAPHS = {
    "predictor": """predictor (uint8[N,H,W,3] lr) => (float[N,10] code)
        <float[1,10] first = {FIRST}, int64[1] ten = {{10}}> {{
            batch = Shape <start = 0, end = 1> (lr)
            shape = Concat <axis = 0> (batch, ten)
            code = Expand (first, shape)
        }}""",
    "sftmd": """sftmd (uint8[N,H,W,3] lr, float[N,10] code)
        => (float[N,3,SH,SW] sr, uint8[N,SH,SW,3] frame)
        <float[1,10] first = {FIRST}, float[10,1] along = {ALONG}, float[3] tint = {TINT},
         float[4] scales = {{1, 4, 4, 1}}, int64[2] axes = {{2, 3}}, float low = {{0}},
         float high = {{255}}> {{
            small = Cast <to = 1> (lr)
            large = Resize <mode = "nearest"> (small, "", scales)
            away = Sub (code, first)
            levels = MatMul (away, along)
            whole = Round (levels)
            plane = Unsqueeze (whole, axes)
            brighter = Add (large, plane)
            tinted = Add (brighter, tint)
            clipped = Clip (tinted, low, high)
            frame = Cast <to = 2> (clipped)
            unit = Div (clipped, high)
            sr = Transpose <perm = [0, 3, 1, 2]> (unit)
        }}""",
    "corrector": """corrector (float[N,3,SH,SW] sr, float[N,10] code) => (float[N,10] next_code)
        <float[1,10] correction = {CORRECTION}> {{
            next_code = Add (code, correction)
        }}""",
}


def repeating_bundle(folder: Path, tint: tuple[int, int, int] = (0, 0, 0)) -> Bundle:
    """Write the bundle to `folder`."""
    constants = {
        "FIRST": FIRST,
        "CORRECTION": CORRECTION,
        "ALONG": LEVELS * CORRECTION / np.sum(CORRECTION**2),
        "TINT": np.array(tint, np.float32),
    }
    texts = {
        name: "{" + ", ".join(repr(float(value)) for value in values) + "}"
        for name, values in constants.items()
    }
    graphs = {
        name: onnx.parser.parse_model(_HEADER + graph.format(**texts))
        for name, graph in _GRAPHS.items()
    }
    return hand_made_bundle(folder, graphs, name="repeating")


def repeated(image: NDArray[Any]) -> NDArray[Any]:
    """What F makes of `[H,W,...]` at the first step."""
    return image.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
