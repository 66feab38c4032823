"""Cuts a graph for 16 bits into parts, of which those that compute vectors stay in float32.

Networks turn a kernel code into scales and shifts for all pixels, and statistics of all pixels into
a code. A rounding error of such a vector changes a whole image in the same way, while the errors of
pixels are independent. In bfloat16, the vectors cost up to 15 dB of the images' PSNR against those
of float32 (docs/adr/0037).

OpenVINO has one precision for a model, so a graph is cut where its tensors change from vectors to
images and back: `code -> vectors -> image -> vectors -> code`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

_MAX_VECTOR_RANK: Final = 2
"""Maximum number of axes of a vector: batch and channels."""


class _PartPlace(IntEnum):
    """Where an operation runs; parts run in this order."""

    FIRST = 0
    """On vectors, before the images."""
    IMAGES = 1
    """On images, or between operations on images."""
    LAST = 2
    """On vectors, after the images."""


@dataclass(frozen=True)
class Part:
    """A part of a graph; the parts run in order, and tensors of equal names are passed on."""

    model: Any
    """OpenVINO's `Model`."""
    on_vectors: bool
    """Whether it computes vectors only."""


def cut_vectors(model: Any) -> tuple[Part, ...]:
    """Cut a model where its tensors change between vectors and images.

    Args:
        model: OpenVINO's `Model`, changed by this function. Inputs and outputs keep their names.

    Returns:
        Up to three parts. The whole model as one part on images if it has no operation on vectors
        at its beginning or end, or if a tensor at a cut has an open size besides the batch.
    """
    places = _places(model)
    crossing = [
        (output, users_of)
        for node in model.get_ordered_ops()
        if node.get_name() in places
        for output in node.outputs()
        if (users_of := _users_by_place(output, places, but=places[node.get_name()]))
    ]
    if not crossing or not all(_has_known_size(output) for output, _ in crossing):
        return (Part(model, on_vectors=False),)
    results: dict[_PartPlace, list[Any]] = {place: [] for place in _PartPlace}
    for result in model.get_results():
        source = result.input_value(0).get_node().get_name()
        results[places.get(source, _PartPlace.LAST)].append(result)
    inputs: dict[_PartPlace, list[Any]] = {place: [] for place in _PartPlace}
    for parameter in model.get_parameters():
        output = parameter.output(0)
        for place, users in _users_by_place(output, places).items():
            inputs[place].append(_new_input(output, users))
    for number, (output, users_of) in enumerate(crossing):
        output.add_names({f"vector{number}"})
        for place, users in users_of.items():
            inputs[place].append(_new_input(output, users))
        results[places[output.get_node().get_name()]].append(_new_result(output))
    return tuple(
        Part(_model(results[place], inputs[place]), on_vectors=place is not _PartPlace.IMAGES)
        for place in _PartPlace
        if results[place]
    )


def _places(model: Any) -> dict[str, _PartPlace]:
    """Return the place of every operation that depends on an input, by its unique name."""
    places: dict[str, _PartPlace] = {}
    given = {parameter.get_name() for parameter in model.get_parameters()}
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() != "Result"]
    for node in nodes:
        sources = {value.get_node().get_name() for value in node.input_values()}
        if sources.isdisjoint(given | places.keys()):
            continue
        is_first = _is_on_vectors(node) and all(
            places[source] is _PartPlace.FIRST for source in sources & places.keys()
        )
        places[node.get_name()] = _PartPlace.FIRST if is_first else _PartPlace.IMAGES
    for node in reversed(nodes):
        if places.get(node.get_name()) is _PartPlace.IMAGES and _is_on_vectors(node):
            users = [user for output in node.outputs() for user in _users(output)]
            if all(places[user.get_node().get_name()] is _PartPlace.LAST for user in users):
                places[node.get_name()] = _PartPlace.LAST
    return places


def _is_on_vectors(node: Any) -> bool:
    tensors = (*node.input_values(), *node.outputs())
    ranks = [tensor.get_partial_shape().rank for tensor in tensors]
    return all(rank.is_static and rank.get_length() <= _MAX_VECTOR_RANK for rank in ranks)


def _has_known_size(output: Any) -> bool:
    """Return whether all sizes but the batch are known."""
    return not any(size.is_dynamic for size in list(output.get_partial_shape())[1:])


def _users(output: Any) -> list[Any]:
    """Return the inputs of operations that read an output; results are none."""
    return [
        target
        for target in output.get_target_inputs()
        if target.get_node().get_type_name() != "Result"
    ]


def _users_by_place(
    output: Any, places: Mapping[str, _PartPlace], but: _PartPlace | None = None
) -> dict[_PartPlace, list[Any]]:
    found: dict[_PartPlace, list[Any]] = {}
    for user in _users(output):
        place = places[user.get_node().get_name()]
        if place is not but:
            found.setdefault(place, []).append(user)
    return found


def _new_input(output: Any, users: Iterable[Any]) -> Any:
    """Return a new input of a part with the names of `output`, which `users` read instead."""
    from openvino import opset13

    parameter = opset13.parameter(output.get_partial_shape(), output.get_element_type())
    parameter.output(0).set_names(output.get_names())
    for user in users:
        user.replace_source_output(parameter.output(0))
    return parameter


def _new_result(output: Any) -> Any:
    from openvino import opset13

    return opset13.result(output)


def _model(results: list[Any], inputs: list[Any]) -> Any:
    from openvino import Model

    return Model(results, inputs)
