"""Corrections that are skipped once the code hardly changes, against the full loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ikc_deploy
from ikc_deploy import Bundle, InputError, Result, Upscaler
from tests.samples import photo

ITERS = 4
FRAME = photo(96, 100)


def upscaled(bundle: Bundle, early_stop: float | None, iters: int = ITERS, **call: Any) -> Result:
    with ikc_deploy.load(
        bundle, "onnxruntime", iters, threads=1, early_stop=early_stop
    ) as upscaler:
        return upscaler(FRAME, **call)


def changes(result: Result) -> np.ndarray:
    """Norms of the changes of the code, by correction."""
    return np.linalg.norm(np.diff(result.codes, axis=0), axis=-1)


def assert_equal(ours: Result, expected: Result) -> None:
    assert ours.corrections == expected.corrections
    assert np.array_equal(ours.codes, expected.codes)
    assert np.array_equal(ours.image, expected.image)
    for image, wanted in zip(ours.steps, expected.steps, strict=True):
        assert np.array_equal(image, wanted)


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("estimate", ["full", "crops", "track"])
def test_a_limit_that_is_never_reached_changes_nothing(
    small_bundle: Bundle, estimate: str, steps: bool
) -> None:
    call: dict[str, Any] = {"estimate": estimate, "steps": steps}
    expected = upscaled(small_bundle, None, **call)
    assert expected.corrections == ITERS
    assert_equal(upscaled(small_bundle, 0, **call), expected)


@pytest.mark.parametrize("steps", [False, True])
def test_the_loop_ends_with_the_first_small_change(small_bundle: Bundle, steps: bool) -> None:
    full = changes(upscaled(small_bundle, None))
    for limit in (*np.nextafter(full, np.inf, dtype=np.float32), float("inf")):
        count = 1 + int(np.argmax(full < limit))
        ours = upscaled(small_bundle, float(limit), steps=steps)
        assert_equal(ours, upscaled(small_bundle, None, count, steps=steps))
        assert ours.corrections == count == len(ours.codes) - 1


@pytest.mark.parametrize("tile", ["auto", 64])
@pytest.mark.parametrize("estimate", ["full", "crops", "track"])
def test_one_correction_is_the_least(small_bundle: Bundle, estimate: Any, tile: Any) -> None:
    with (
        ikc_deploy.load(small_bundle, "onnxruntime", ITERS, early_stop=9e9, tile=tile) as stopping,
        ikc_deploy.load(small_bundle, "onnxruntime", 1, tile=tile) as once,
    ):
        for _ in range(2):
            assert_equal(stopping(FRAME, estimate=estimate), once(FRAME, estimate=estimate))


def test_a_batch_ends_with_its_last_frame(small_bundle: Bundle) -> None:
    frames = np.stack([photo(40, 48, seed) for seed in range(3)])
    with ikc_deploy.load(small_bundle, "onnxruntime", ITERS, threads=1) as upscaler:
        full = changes(upscaler(frames))
    limit = float(full.max(axis=1)[1]) * 1.001
    count = 1 + int(np.argmax(full.max(axis=1) < limit))
    with ikc_deploy.load(small_bundle, "onnxruntime", ITERS, threads=1, early_stop=limit) as early:
        assert early(frames).corrections == count
        crops = early(np.stack([photo(100, 96, seed) for seed in range(2)]), estimate="crops")
        assert len(crops.codes) == crops.corrections + 1


def test_corrections_are_counted_in_every_mode(small_bundle: Bundle) -> None:
    assert upscaled(small_bundle, None, sigma=1.7).corrections == 0
    assert upscaled(small_bundle, 0, sigma=1.7).corrections == 0
    assert upscaled(small_bundle, 0.1, iters=0).corrections == 0
    with ikc_deploy.load(small_bundle, "onnxruntime", ITERS, early_stop=0) as upscaler:
        assert [each.corrections for each in upscaler.stream([FRAME] * 3)] == [ITERS, 1, 1]
    with ikc_deploy.load(small_bundle, "onnxruntime", 0) as upscaler:
        assert [each.corrections for each in upscaler.stream([FRAME] * 2)] == [0, 0]


def test_a_limit_that_is_no_number_is_refused(small_bundle: Bundle) -> None:
    for wrong in (-1, float("nan"), "0.1", True):
        with pytest.raises(InputError, match="early_stop must lie in"):
            ikc_deploy.load(small_bundle, early_stop=wrong)  # type: ignore[arg-type]
    with ikc_deploy.load(small_bundle, "onnxruntime") as upscaler:
        backend = upscaler.backend
        with pytest.raises(InputError, match="early_stop must lie in"):
            Upscaler(small_bundle, backend, early_stop=-1)
