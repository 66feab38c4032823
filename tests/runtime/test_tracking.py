from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import ikc_deploy
from ikc_deploy import Bundle, Upscaler
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.runtime.frame_plane import HostPlane
from ikc_deploy.runtime.tracking import Sequencer, Tracker, thumbnail
from tests.repeating import CORRECTION, FIRST
from tests.samples import photo

BASIS = KernelBasis.fit((0.2, 4.0))


def scene(seed: int, size: int = 96) -> NDArray[np.uint8]:
    return photo(size, size, seed)[..., 1]


def cuts(frames: list[NDArray[np.uint8]]) -> list[int]:
    """Where a tracker starts over."""
    tracker, found = Tracker(), []
    for number, levels in enumerate(frames):
        if not tracker.is_same_scene(thumbnail(HostPlane(levels))):
            found.append(number)
            tracker.reset(BASIS.code_of_sigma(1.0))
    return found


def test_a_still_picture_with_noise_is_one_scene() -> None:
    random = np.random.default_rng(0)
    noisy = (np.clip(scene(1) + random.normal(0, 10, (96, 96)), 0, 255) for _ in range(20))
    assert cuts([levels.astype(np.uint8) for levels in noisy]) == [0]


def test_motion_is_no_cut_once_it_is_known() -> None:
    wide = photo(96, 700, 3)[..., 1]
    for step in (1, 8, 24):
        found = cuts([wide[:, start : start + 96] for start in range(0, 600, step)])
        assert found[-1] <= 3


def test_cuts_are_seen_where_they_are() -> None:
    frames = [scene(1)] * 5 + [scene(2)] * 3 + [scene(3)] * 4
    assert cuts(frames) == [0, 5, 8]
    dark = [(levels // 4).astype(np.uint8) for levels in frames]
    assert cuts(dark) == [0, 5, 8]


def test_another_size_is_another_scene() -> None:
    assert cuts([scene(1, 96), scene(1, 64), scene(1, 64)]) == [0, 1]


@given(st.floats(0.5, 3.8), st.floats(0.5, 3.8))
def test_a_constant_answer_is_where_the_code_ends(first: float, later: float) -> None:
    tracker = Tracker()
    tracker.reset(BASIS.code_of_sigma(first))
    truth = BASIS.code_of_sigma(later)
    for _ in range(60):
        used = tracker.update(tracker.initial_code(truth))
    np.testing.assert_allclose(used, truth, atol=1e-4)


def test_a_code_that_scatters_scatters_less_after_tracking() -> None:
    random = np.random.default_rng(0)
    scattered = BASIS.code_of_sigma(2.4 + 0.1 * random.standard_normal(80))
    tracker = Tracker()
    tracker.reset(scattered[0])
    used = [tracker.update(tracker.initial_code(code)) for code in scattered[1:]]
    before, after = (np.diff(BASIS.sigma_of_code(codes)) for codes in (scattered, np.array(used)))
    assert np.abs(after).mean() < 0.25 * np.abs(before).mean()


@pytest.fixture(scope="module")
def repeating(bundle: Bundle) -> Upscaler:
    """P always says FIRST, and each correction adds CORRECTION."""
    return ikc_deploy.load(bundle, iters=3)


def test_a_clip_starts_with_the_loop_and_goes_on_with_one_correction(repeating: Upscaler) -> None:
    frame = photo(96, 96)
    first, second, third = repeating.stream([frame] * 3)
    np.testing.assert_allclose(first.codes, [FIRST + i * CORRECTION for i in range(4)], atol=1e-5)
    # A quarter of the way from 3 corrections back to none, then one more.
    np.testing.assert_allclose(second.codes[0], FIRST + 2.25 * CORRECTION, atol=1e-5)
    # Halfway from the 3 that were used to the 3.25 that were found.
    np.testing.assert_allclose(second.codes[1], FIRST + 3.125 * CORRECTION, atol=1e-5)
    assert second.codes.shape == third.codes.shape == (2, 10)


def test_a_cut_starts_over(repeating: Upscaler) -> None:
    results = repeating.stream([photo(96, 96, 1)] * 3 + [photo(96, 96, 2)] * 2)
    assert [len(result.codes) for result in results] == [4, 2, 2, 4, 2]


def test_without_corrections_the_predictor_alone_is_tracked(small_bundle: Bundle) -> None:
    with ikc_deploy.load(small_bundle, iters=0, estimate="track") as upscaler:
        assert upscaler(photo(64, 64)).codes.shape == (1, 10)
        assert np.isfinite(upscaler(photo(64, 64)).codes).all()


def test_streams_and_calls_have_trackers_of_their_own(small_bundle: Bundle) -> None:
    frames = [photo(96, 96, 1)] * 2
    with ikc_deploy.load(small_bundle, iters=1, estimate="track") as upscaler:
        upscaler(frames[0])
        assert [len(result.codes) for result in upscaler.stream(frames)] == [2, 2]
        one, other = upscaler.stream(frames), upscaler.stream([255 - photo(96, 96, 9)] * 2)
        alternating = [next(one), next(other), next(one), next(other)]
        alone = [*upscaler.stream(frames)]
    assert np.array_equal(alternating[2].codes, alone[1].codes)


def test_a_frame_that_fails_early_does_not_let_later_frames_pass_earlier_ones() -> None:
    turns = Sequencer()
    first, second, third = turns.take(), turns.take(), turns.take()
    order: list[str] = []

    def third_frame() -> None:
        third.wait()
        order.append("third")

    thread = threading.Thread(target=third_frame)
    second.end()
    thread.start()
    thread.join(0.1)
    order.append("first")
    first.end()
    first.end()
    thread.join()
    assert order == ["first", "third"]
    third.end()
    turns.take().wait()
