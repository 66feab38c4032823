from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy.loops import DAN, IKC, LOOPS, Loop, LoopGraph, find_loop


@pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))
@given(iters=st.integers(0, 5))
def test_walking_visits_the_graphs_of_the_blind_sequence(loop: Loop, iters: int) -> None:
    visited: list[str] = []

    def run(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        assert tuple(inputs) == loop.graph(name).inputs
        visited.append(name)
        return {output: (name, len(visited)) for output in loop.outputs(name, "uint8")}

    start = None if loop.start else "delta"
    steps = list(loop.walk(run, "frames", start, iters))
    assert visited == [name for name, _ in loop.blind(iters)]
    assert len(steps) == iters + 1
    assert loop.passes(iters) == {name: visited.count(name) for name in loop.graphs}


def test_a_correction_ends_with_a_code() -> None:
    assert IKC.correct(2) == (("sftmd", 0), ("corrector", 1), ("sftmd", 1), ("corrector", 2))
    assert DAN.predict() == ()
    assert DAN.blind(1) == (("restorer", 0), ("estimator", 1), ("restorer", 1))


def test_a_third_loop_is_a_declaration() -> None:
    graph = LoopGraph("deblur", ("lr", "code"))
    loop = Loop("third", None, graph, LoopGraph("look", ("sr", "lr", "code")), True, 2)
    assert loop.graphs == ("deblur", "look")
    assert loop.outputs("deblur", "float") == ("sr",)
    assert loop.outputs("look", "float") == ("next_code",)


@pytest.mark.parametrize(
    ("start", "image", "reason"),
    [
        (LoopGraph("first", ("sr",)), LoopGraph("image", ("lr", "code")), "only"),
        (None, LoopGraph("image", ("sr", "code")), "only"),
        (None, LoopGraph("update", ("lr", "code")), "share a name"),
    ],
)
def test_impossible_loops_are_refused(
    start: LoopGraph | None, image: LoopGraph, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Loop("wrong", start, image, LoopGraph("update", ("sr",)), True, 1)


def test_an_unknown_loop_and_a_missing_start_are_errors() -> None:
    with pytest.raises(ValueError, match="loop must be one of ikc, dan, got 'other'"):
        find_loop("other")
    with pytest.raises(ValueError, match="starts at a constant code"):
        next(DAN.walk(lambda _, inputs: inputs, "frames", None, 1))
