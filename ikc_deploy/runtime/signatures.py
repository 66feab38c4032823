"""Inputs and outputs of a bundle's graphs, as its manifest defines them.

`ikc_deploy.export.graphs` describes them. Every backend checks the graphs that it loads against
this, whatever tool exported them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ikc_deploy.bundle.manifest import USRNET, Bundle, FrameIO
from ikc_deploy.errors import BundleError
from ikc_deploy.loops import CODE, FRAME, LR, NEXT_CODE, SR
from ikc_deploy.runtime.frames import LAYOUTS, FrameShape

Dims = tuple[int | None, ...]
"""Shape of a tensor; None where any size is allowed."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph."""

    dtype: np.dtype[Any]
    shape: Dims


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a graph, by name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def signature(bundle: Bundle, graph: str, frames: FrameShape | None = None) -> Signature:
    """Return the inputs and outputs that a graph of a bundle must have.

    Args:
        bundle: The opened bundle.
        graph: Name of a graph of the bundle's loop, or "usrnet".
        frames: Shape of the LR frames; None for any shape.

    Returns:
        The signature; sizes that depend on the frames are None if `frames` is.

    Raises:
        BundleError: `graph` is "usrnet", and the bundle has none.
    """
    manifest = bundle.manifest
    layout = LAYOUTS[manifest.io]
    if graph == USRNET:
        record = bundle.usrnet
        side = record.kernel_size
        fixed = FrameShape(1, record.height, record.width)
        inputs = {
            "lr": Tensor(layout.dtype, fixed.array(manifest.io)),
            "kernel": Tensor(np.dtype(np.float32), (1, side, side)),
            "noise": Tensor(np.dtype(np.float32), (1,)),
        }
        image = Tensor(layout.dtype, fixed.array(manifest.io, manifest.scale))
        return Signature(inputs, {layout.image: image})
    codes = Tensor(
        np.dtype(np.float32), (None if frames is None else frames.batch, manifest.code_size)
    )
    tensors = {
        LR: Tensor(layout.dtype, _open(frames, manifest.io, 1)),
        SR: Tensor(layout.sr_dtype(manifest.precision), _open(frames, "float", manifest.scale)),
        FRAME: Tensor(layout.dtype, _open(frames, manifest.io, manifest.scale)),
        CODE: codes,
        NEXT_CODE: codes,
    }
    loop = bundle.loop
    return Signature(
        {name: tensors[name] for name in loop.graph(graph).inputs},
        {name: tensors[name] for name in loop.outputs(graph, manifest.io)},
    )


def _open(frames: FrameShape | None, io: FrameIO, scale: int) -> Dims:
    """Return the shape of frames, with open sizes if there is none."""
    if frames is not None:
        return frames.array(io, scale)
    # A channel axis has 3 entries whatever the size of the frames.
    one, two = (FrameShape(size, size, size).array(io) for size in (1, 2))
    return tuple(size if size == other else None for size, other in zip(one, two, strict=True))


def check_signature(
    bundle: Bundle,
    graph: str,
    found: Signature,
    frames: FrameShape | None = None,
) -> None:
    """Check the inputs and outputs of a loaded graph against the manifest.

    Args:
        bundle: The opened bundle.
        graph: Name of the graph.
        found: Inputs and outputs of the loaded graph; an open size (None) fits any.
        frames: Shape of the LR frames; None for any shape.

    Raises:
        BundleError: A tensor differs; the message names the first one.
    """
    wanted = signature(bundle, graph, frames)
    for kind, expected, given in (
        ("input", wanted.inputs, found.inputs),
        ("output", wanted.outputs, found.outputs),
    ):
        if set(expected) != set(given):
            raise _mismatch(bundle, graph, f"{kind}s {_names(given)}", _names(expected))
        for name, tensor in expected.items():
            if not _fits(tensor, given[name]):
                raise _mismatch(
                    bundle, graph, f"an {kind} {name} of {_text(given[name])}", _text(tensor)
                )


def _fits(expected: Tensor, given: Tensor) -> bool:
    if expected.dtype != given.dtype or len(expected.shape) != len(given.shape):
        return False
    # The graph must accept any size where the manifest does, and may where the manifest does not.
    pairs = zip(expected.shape, given.shape, strict=True)
    return all(have is None or have == want for want, have in pairs)


def _names(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted(tensors))


def _text(tensor: Tensor) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in tensor.shape)
    return f"{tensor.dtype} [{sizes}]"


def _mismatch(bundle: Bundle, graph: str, found: str, wanted: str) -> BundleError:
    manifest = bundle.manifest
    return BundleError(
        f"the {graph} of '{bundle.path}' has {found}, and its manifest (x{manifest.scale}, "
        f"{manifest.precision}, {manifest.io}, codes of {manifest.code_size}) requires {wanted}; "
        "export it again with ikc-export"
    )
