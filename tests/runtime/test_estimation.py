from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

import ikc_deploy
from ikc_deploy import Bundle, InputError, Upscaler
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.networks.checkpoints import load_checkpoint
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.runtime.estimation import (
    CROPS,
    check_estimate,
    crop_areas,
    crop_side,
    textured_areas,
    trimmed_mean_code,
)
from ikc_deploy.runtime.frame_plane import HostPlane
from tests.samples import photo

BASIS = KernelBasis.fit((0.2, 4.0))


@pytest.fixture(scope="module")
def upscaler(small_bundle: Bundle) -> Upscaler:
    return ikc_deploy.load(small_bundle, iters=2)


@pytest.fixture(scope="module")
def networks(small_checkpoint: Path) -> IkcNetworks:
    networks = load_checkpoint(small_checkpoint)
    assert isinstance(networks, IkcNetworks)
    return networks


def half_sky(height: int, width: int) -> NDArray[np.uint8]:
    """Flat above, textured below."""
    frame = photo(height, width)
    frame[: height // 2] = (90, 140, 220)
    return frame


@given(st.integers(100, 300), st.integers(100, 300), st.integers(0, 99))
def test_crops_are_disjoint_inside_and_no_sky(height: int, width: int, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    levels[: height // 2] = 200
    areas = textured_areas(HostPlane(levels), 32, CROPS)
    covered = np.zeros((height, width), int)
    for rows, columns in areas:
        assert rows.stop - rows.start == columns.stop - columns.start == 32
        covered[rows, columns] += 1
        assert np.ptp(levels[rows, columns][-8:]) > 0
        assert rows.stop > height // 2
    assert covered.max() == 1
    assert covered.sum() == len(areas) * 32 * 32


def test_the_texture_chosen_is_the_strongest() -> None:
    """Against the gradient of every pixel, by scipy, in every possible place."""
    levels = photo(160, 200)[..., 1]
    values = levels.astype(float)
    steps = sum(
        np.minimum(np.abs(ndimage.correlate1d(values, [-1.0, 1.0, 0.0], axis)), 16)
        for axis in (0, 1)
    )
    means = ndimage.uniform_filter(np.asarray(steps), 32, origin=-16)[: 160 - 31, : 200 - 31]
    rows, columns = textured_areas(HostPlane(levels), 32, 4)[0]
    assert means[rows.start, columns.start] > 0.9 * means.max()


@pytest.mark.parametrize(("size", "side"), [((64, 64), 32), ((270, 480), 48), ((2160, 3840), 64)])
def test_crops_grow_with_the_frame(size: tuple[int, int], side: int) -> None:
    assert crop_side(*size) == side


def test_small_frames_are_taken_whole() -> None:
    assert crop_areas(HostPlane(photo(64, 64)[..., 1])) == [(slice(0, 64), slice(0, 64))]
    assert crop_areas(HostPlane(np.zeros((20, 900)))) == [(slice(0, 20), slice(0, 900))]


@pytest.mark.parametrize(("height", "side"), [(100, 64), (40, 32), (9, 9)])
def test_areas_are_no_larger_than_the_frame(height: int, side: int) -> None:
    for rows, columns in textured_areas(HostPlane(photo(height, 200)[..., 1]), 64, CROPS):
        assert rows.stop - rows.start == columns.stop - columns.start == side
        assert rows.stop <= height and columns.stop <= 200


def test_a_crop_that_misleads_does_not_count() -> None:
    codes = BASIS.code_of_sigma([2.3, 0.4, 2.5, 3.9])
    expected = BASIS.code_of_sigma([2.3, 2.5]).mean(axis=0)
    np.testing.assert_allclose(trimmed_mean_code(codes, BASIS), expected, rtol=1e-6)
    assert np.array_equal(trimmed_mean_code(codes[:1], BASIS), codes[0])


def test_crops_are_corrected_from_the_prediction_for_the_whole(
    upscaler: Upscaler, networks: IkcNetworks
) -> None:
    """Against the paper's loop on each crop, in torch."""
    frame = half_sky(160, 128)
    areas = crop_areas(HostPlane(frame[..., 1]))
    assert len(areas) == CROPS
    planes = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    codes = np.zeros((3, CROPS, 10), np.float32)
    with torch.no_grad():
        start = networks.predictor(planes)
        for index, (rows, columns) in enumerate(areas):
            code, crop = start, planes[:, :, rows, columns]
            codes[0, index] = code[0]
            for step in (1, 2):
                code = networks.corrector(networks.sftmd(crop, code), code)
                codes[step, index] = code[0]
    result = upscaler(frame, estimate="crops", steps=True)
    assert result.codes.shape == (3, 10)
    np.testing.assert_allclose(
        result.codes, trimmed_mean_code(codes, upscaler.bundle.basis), atol=1e-5
    )
    assert np.array_equal(result.image, upscaler(frame, code=result.codes[-1]).image)
    assert np.array_equal(result.steps[0], upscaler(frame, code=result.codes[0]).image)


def test_a_frame_no_larger_than_its_crops_gets_the_whole_loop(upscaler: Upscaler) -> None:
    frame = photo(40, 36)
    full, crops = upscaler(frame), upscaler(frame, estimate="crops")
    np.testing.assert_allclose(full.codes, crops.codes, atol=1e-6)
    assert np.array_equal(full.image, crops.image)


def test_every_frame_of_a_batch_has_a_code_of_its_own(upscaler: Upscaler) -> None:
    frames = np.stack([photo(100, 96, seed) for seed in (1, 2)])
    batch = upscaler(frames, estimate="crops")
    assert batch.codes.shape == (3, 2, 10)
    for index, frame in enumerate(frames):
        alone = upscaler(frame, estimate="crops")
        np.testing.assert_allclose(batch.codes[:, index], alone.codes, atol=1e-6)
        assert np.abs(batch.image[index].astype(int) - alone.image).max() <= 1


def test_the_way_can_be_chosen_once_or_for_a_call(small_bundle: Bundle) -> None:
    frame = half_sky(100, 96)
    with ikc_deploy.load(small_bundle, iters=1, estimate="crops") as upscaler:
        assert np.array_equal(upscaler(frame).codes, upscaler(frame, estimate="crops").codes)
        assert not np.array_equal(upscaler(frame).codes, upscaler(frame, estimate="full").codes)


def test_submitted_frames_are_estimated_alike(upscaler: Upscaler) -> None:
    frame = half_sky(100, 96)
    ticket = upscaler.submit(frame, estimate="crops")
    assert np.array_equal(ticket.result(60).codes, upscaler(frame, estimate="crops").codes)
    with pytest.raises(InputError, match=r"processed at the same time.*cannot be tracked"):
        upscaler.submit(frame, estimate="track")
    assert upscaler.submit(frame, estimate="track", sigma=1.0).result(60).codes.shape == (1, 10)


def test_an_unknown_way_names_the_known_ones(upscaler: Upscaler, small_bundle: Bundle) -> None:
    with pytest.raises(InputError, match="one of full, crops, track, got 'guess'"):
        upscaler(photo(16, 16), estimate=check_estimate("guess"))
    with pytest.raises(InputError, match="one of full, crops, track"):
        ikc_deploy.load(small_bundle, estimate="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tracked frame by frame, got a batch of 2"):
        upscaler(np.stack([photo(16, 16)] * 2), estimate="track")
