"""The graphs of a bundle as bytes, checked before the parser of another project reads them.

In ONNX, a graph may name another file that contains a tensor: relative to the graph's file, or to
the working folder if the graph is given as bytes. The manifest's checksum does not cover that file,
and ONNX Runtime even accepts an address in its own memory as a name. Our graphs contain all of
their tensors, so a graph that names a file is refused. Only numpy and ONNX Runtime need to be
installed, so the few fields are read directly from the protobuf encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import BundleError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING = range(8)

_INSIDE: Final[dict[int, dict[int, int]]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
"""Fields that hold messages in which tensors may be, by message (onnx.proto, IR version 13)."""

_GRAPH_FIELD: Final = 7
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_DEEPEST: Final = 64


def read_graph(bundle: Bundle, name: str) -> bytes:
    """Return the verified bytes of a graph, safe for a parser.

    Args:
        bundle: The opened bundle.
        name: Name of a graph of the bundle.

    Returns:
        The content of the ONNX file.

    Raises:
        BundleError: The file was altered since the bundle was opened, is not an ONNX model, or has
            tensors in other files.
    """
    data = bundle.graph_bytes(name)
    try:
        external = keeps_tensors_elsewhere(data)
    except ValueError as error:
        raise BundleError(f"'{bundle.graph(name)}' is not an ONNX model: {error}") from error
    if external:
        raise BundleError(
            f"'{bundle.graph(name)}' keeps tensors in other files, which no checksum of the "
            "bundle covers; export it again with ikc-export"
        )
    return data


def keeps_tensors_elsewhere(model: bytes) -> bool:
    """Return whether a tensor of an encoded ONNX model is in another file.

    Raises:
        ValueError: `model` is not an ONNX model.
    """
    view = memoryview(model)
    fields = {number for number, _ in _fields(view)}
    if _GRAPH_FIELD not in fields:
        raise ValueError("it has no graph")
    waiting = [(_MODEL, view, 0)]
    while waiting:
        message, content, depth = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError(f"its graphs are nested deeper than {_DEEPEST} levels")
        inside = _INSIDE[message]
        for number, value in _fields(content):
            if message == _TENSOR:
                located = number == _DATA_LOCATION and value == _EXTERNAL
                if located or number == _EXTERNAL_DATA:
                    return True
            elif number in inside:
                if not isinstance(value, memoryview):
                    raise ValueError(f"its field {number} is of another type")
                waiting.append((inside[number], value, depth + 1))
    return False


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field of a protobuf message."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(content, place)
            yield number, value
            continue
        if kind == _BYTES:
            length, place = _varint(content, place)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"invalid field at byte {place}")
        if number == 0 or place + length > len(content):
            raise ValueError("it is cut short")
        yield number, content[place : place + length]
        place += length


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            raise ValueError("it is cut short")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number in it is too long")
