"""A bundle of tiny hand-made FP16 graphs with the contracts of `ikc_deploy.export.graphs`.

They do nothing useful, but TensorRT compiles them in a blink, and `changes` smuggle in what must
not be there: they edit the text of the graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx.parser

from ikc_deploy import Bundle
from tests.sealing import hand_made_bundle, seal
from tools.torture.placeholder_engine import write_placeholder_engine

_HEADER = '<ir_version: 8, opset_import: ["": 18]>'
_PLANES = """
    wide = Cast <to = 1> (lr)
    planes = Transpose <perm = [0, 3, 1, 2]> (wide)
    scaled = Mul (planes, unit)
    half = Cast <to = 10> (scaled)
"""
_GRAPHS: Final = {
    "predictor": """predictor (uint8[N,H,W,3] lr) => (float[N,10] code)
        <float unit = {0.003921569}, int64[2] space = {2, 3}> {"""
    + _PLANES
    + """
            features = Conv <pads = [1, 1, 1, 1]> (half, weight)
            full = Cast <to = 1> (features)
            code = ReduceMean <keepdims = 0> (full, space)
        }""",
    "sftmd": """sftmd (uint8[N,H,W,3] lr, float[N,10] code)
        => (float16[N,3,SH,SW] sr, uint8[N,SH,SW,3] frame)
        <float unit = {0.003921569}, int64[2] space = {2, 3}, float low = {0}, float high = {1},
         float levels = {255}> {"""
    + _PLANES
    + """
            bias = MatMul (code, mix)
            plane = Unsqueeze (bias, space)
            half_plane = Cast <to = 10> (plane)
            features = Conv <pads = [1, 1, 1, 1]> (half, weight)
            moved = Add (features, half_plane)
            sr = DepthToSpace <blocksize = 4> (moved)
            full = Cast <to = 1> (sr)
            clipped = Clip (full, low, high)
            bytes = Mul (clipped, levels)
            whole = Round (bytes)
            last = Transpose <perm = [0, 2, 3, 1]> (whole)
            frame = Cast <to = 2> (last)
        }""",
    "corrector": """corrector (float16[N,3,SH,SW] sr, float[N,10] code) => (float[N,10] next_code)
        <int64[2] space = {2, 3}> {
            features = Conv <pads = [1, 1, 1, 1]> (sr, weight)
            full = Cast <to = 1> (features)
            change = ReduceMean <keepdims = 0> (full, space)
            next_code = Add (code, change)
        }""",
}
_CHANNELS: Final = {"predictor": 10, "sftmd": 48, "corrector": 10}


def half_bundle(
    folder: Path, changes: Mapping[str, str] | None = None, full: tuple[str, ...] = ()
) -> Bundle:
    """Write the bundle to `folder`; the convolution weights of the graphs in `full` are float32."""
    random = np.random.default_rng(0)
    graphs = {}
    for name, text in _GRAPHS.items():
        for old, new in (changes or {}).items():
            text = text.replace(old, new)
        model = graphs[name] = onnx.parser.parse_model(_HEADER + text)
        dtype = np.float32 if name in full else np.float16
        arrays = {
            "weight": (0.1 * random.standard_normal((_CHANNELS[name], 3, 3, 3))).astype(dtype)
        }
        if name == "sftmd":
            arrays["mix"] = (0.1 * random.standard_normal((10, 48))).astype(np.float32)
        for key, array in arrays.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
        for node in model.graph.node:
            node.name = f"node_{node.output[0]}"
    return hand_made_bundle(folder, graphs, name="half", precision="fp16", random_weights=True)


def write_engine(bundle: Bundle, name: str, **changes: Any) -> Bundle:
    """`bundle`, opened again, with an engine whose plans are texts that say which they are."""
    write_placeholder_engine(bundle.path, bundle.files, name, **changes)
    seal(bundle.path, bundle.manifest)
    return Bundle.open(bundle.path)
