from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import ikc_deploy
from ikc_deploy import Bundle, InputError
from ikc_deploy.serving.configs import default_limits
from ikc_deploy.serving.loop import Limits, Streams, restore
from tests.bundles import export_small
from tests.samples import photo

LIMITS = default_limits()


class Networks:
    """The graphs of a bundle, run as a server would; keeps which."""

    def __init__(self, bundle: Bundle) -> None:
        self.calls: list[str] = []
        self._graphs = {
            name: onnxruntime.InferenceSession(str(bundle.graph(name)))
            for name in bundle.loop.graphs
        }

    async def __call__(self, network: str, inputs: Mapping[str, Any], output: str) -> Any:
        self.calls.append(network)
        return self._graphs[network].run([output], dict(inputs))[0]


@pytest.mark.parametrize("iters", [0, 1, 3])
def test_the_loop_is_that_of_the_runtime(small_bundle: Bundle, iters: int) -> None:
    networks = Networks(small_bundle)
    frames = np.stack([photo(16, 20), photo(16, 20, 1)])
    with ikc_deploy.load(small_bundle, iters=iters) as upscaler:
        expected = upscaler(frames)
        given = upscaler(frames, sigma=1.5)
    image, codes = asyncio.run(restore(small_bundle.loop, networks, frames, None, iters))
    np.testing.assert_array_equal(image, expected.image)
    np.testing.assert_array_equal(np.stack(codes), expected.codes)
    assert networks.calls == ["predictor", "sftmd", *["corrector", "sftmd"] * iters]
    networks.calls.clear()
    image, _ = asyncio.run(restore(small_bundle.loop, networks, frames, given.codes[-1], 0))
    np.testing.assert_array_equal(image, given.image)
    assert networks.calls == ["sftmd"]


def test_a_loop_from_a_constant_code_is_that_of_the_runtime(tmp_path: Path) -> None:
    bundle = export_small(tmp_path, "dan2", 3)
    networks = Networks(bundle)
    frames = np.stack([photo(16, 20), photo(16, 20, 1)])
    with ikc_deploy.load(bundle, "onnxruntime", 2) as upscaler:
        expected = upscaler(frames)
    start = np.tile(bundle.basis.delta_code(), (2, 1))
    image, codes = asyncio.run(restore(bundle.loop, networks, frames, start, 2))
    np.testing.assert_array_equal(image, expected.image)
    np.testing.assert_array_equal(np.stack(codes), expected.codes)
    assert networks.calls == ["restorer", *["estimator", "restorer"] * 2]
    with pytest.raises(ValueError, match="starts at a constant code"):
        asyncio.run(restore(bundle.loop, networks, frames, None, 2))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 7, 30, 3), "at least 8 pixels on each side, got 30x7"),
        ((1, 0, 30, 3), "at least 8 pixels"),
        ((0, 16, 16, 3), r"must be \[N,H,W,3\]"),
        ((1, 16, 16, 4), r"must be \[N,H,W,3\]"),
        ((16, 16, 3), r"must be \[N,H,W,3\]"),
        ((1, 101, 10, 3), "at most 1000 pixels, got 10x101"),
    ],
)
def test_frames_beyond_the_limits_are_refused(shape: tuple[int, ...], words: str) -> None:
    limits = replace(LIMITS, largest_area=1000)
    limits.check_frames((4, 100, 10, 3))
    with pytest.raises(InputError, match=words):
        limits.check_frames(shape)


@pytest.mark.parametrize("asked", [[[-1]], [[21]], [[1], [2]], []])
def test_impossible_numbers_of_corrections_are_refused(asked: list[list[int]]) -> None:
    with pytest.raises(InputError, match=r"one whole number in 0\.\.20"):
        LIMITS.iters(np.array(asked, np.int32), tracked=False)


def test_who_asks_for_nothing_gets_what_the_configuration_says() -> None:
    assert LIMITS.iters(None, tracked=False) == 7
    assert LIMITS.iters(None, tracked=True) == 1
    assert LIMITS.iters(np.array([[5], [5]]), tracked=True) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"default_iters": 21}, "default_iters must lie in 0..20"),
        ({"tracked_iters": -1}, "tracked_iters"),
        ({"largest_area": 0}, "largest_area must be at least 1"),
    ],
)
def test_impossible_limits_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(LIMITS, **changes)
    with pytest.raises(InputError, match="smallest_side"):
        Limits.from_parameters({"largest_area": {"string_value": "5"}})


def test_only_the_latest_streams_are_remembered() -> None:
    def code(value: int) -> NDArray[np.float32]:
        return np.full((1, 10), value, np.float32)

    streams = Streams(2)
    for stream in (1, 2, 1, 3):
        streams.remember(stream, code(stream))
    assert streams.recall(2) is None
    streams.forget(3)
    streams.forget(3)
    assert streams.recall(3) is None
    found = streams.recall(1)
    assert found is not None and found[0, 0] == 1
