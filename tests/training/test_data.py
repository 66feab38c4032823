from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ikc_deploy.errors import InputError, RecipeError
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.loop_recipe import CropRecipe
from tests.samples import photo


def coordinates(height: int, width: int, number: int) -> NDArray[np.uint8]:
    """An image whose pixels say where they are: (row, column, image)."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack((rows, columns, np.full_like(rows, number))).astype(np.uint8)


SOURCE = CropSource([coordinates(30, 50, 0), coordinates(64, 21, 1)])


@given(seed=st.integers(0, 2**32 - 1), side=st.integers(1, 21))
def test_crops_are_squares_of_the_images_up_to_flips(seed: int, side: int) -> None:
    crops = SOURCE.crops(np.random.default_rng(seed), 8, side)
    assert crops.shape == (8, 3, side, side)
    for rows, columns, number in crops.numpy().astype(int):
        assert np.ptp(number) == 0
        # One coordinate runs down, the other across, each in unit steps to either side.
        down, across = (rows, columns) if np.ptp(rows[0]) == 0 else (columns, rows)
        assert np.ptp(down, axis=1).max() == 0 and np.ptp(across, axis=0).max() == 0
        for line in (down[:, 0], across[0]):
            assert side == 1 or set(np.diff(line)) in ({1}, {-1})


def test_crops_depend_on_the_random_numbers_alone() -> None:
    first, again, other = (
        SOURCE.crops(np.random.default_rng(seed), 4, 16).numpy() for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_part_of_the_crops_is_that_part(part: slice = slice(2, 5)) -> None:
    whole, some = (SOURCE.crops(np.random.default_rng(3), 8, 9, p) for p in (slice(None), part))
    np.testing.assert_array_equal(some, whole[part])


def test_crops_reach_every_image_corner_and_orientation() -> None:
    crops = SOURCE.crops(np.random.default_rng(0), 2000, 20).numpy().astype(int)
    assert set(crops[:, 2, 0, 0]) == {0, 1}
    assert crops[:, 0].min() == 0 and crops[:, 1].min() == 0
    assert crops[:, 0].max() == 63 and crops[:, 1].max() == 49
    signs = {
        (
            int(rows[-1, 0] - rows[0, 0]),
            int(rows[0, -1] - rows[0, 0]),
            int(columns[-1, -1] - columns[0, 0]),
        )
        for rows, columns, _ in crops
    }
    assert len(signs) == 8


def test_a_damaged_image_is_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_rgb(photo(20, 20), tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    with caplog.at_level(logging.WARNING):
        source = CropSource.from_folders([tmp_path])
    assert len(source.sizes) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "bad.png" in caplog.text


def test_folders_without_a_usable_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        CropSource.from_folders([tmp_path / "gone"])
    with pytest.raises(InputError, match="has no images"):
        CropSource.from_folders([tmp_path])
    (tmp_path / "bad.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match="not one training image"):
        CropSource.from_folders([tmp_path])


def test_images_smaller_than_a_crop_are_left_out() -> None:
    assert SOURCE.at_least(21).sizes.tolist() == [[30, 50], [64, 21]]
    assert SOURCE.at_least(22).sizes.tolist() == [[30, 50]]
    with pytest.raises(RecipeError, match=r"31 pixels.*'patch'"):
        SOURCE.at_least(31)


def detailed(height: int, width: int, texture: slice) -> NDArray[np.uint8]:
    """A flat image with noise in the columns `texture`."""
    image = np.full((height, width, 3), 128, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, image[:, texture].shape)
    image[:, texture] = noise.astype(np.uint8)
    return image


def test_of_several_candidates_the_most_detailed_crop_is_taken() -> None:
    images = [detailed(64, 256, slice(192, 256)), np.full((64, 256, 3), 9, np.uint8)]
    shares = []
    for candidates in (1, 16):
        source = CropSource(images, settings=CropRecipe(candidates=candidates))
        crops = source.crops(np.random.default_rng(1), 400, 32).float()
        shares.append(float((crops.std(dim=(1, 2, 3)) > 10).float().mean()))
    # A crop reaches the noise of one of the two images from 64 of 225 positions: with a probability
    # of 0.14 by chance, and of 1 - 0.86^16 = 0.91 for the best of 16.
    assert shares[0] < 0.25 and shares[1] > 0.8


def test_images_are_drawn_by_a_power_of_their_area() -> None:
    images = [np.full((32, 32, 3), 0, np.uint8), np.full((32, 288, 3), 1, np.uint8)]
    for power, share in ((0.0, 1 / 2), (0.5, 3 / 4), (1.0, 9 / 10)):
        source = CropSource(images, settings=CropRecipe(area_weight=power))
        crops = source.crops(np.random.default_rng(2), 4000, 8)
        assert float(crops[:, 0, 0, 0].float().mean()) == pytest.approx(share, abs=0.03)


def test_large_images_are_there_at_half_size_too() -> None:
    images = [np.full((40, 60, 3), 50, np.uint8), np.full((39, 60, 3), 90, np.uint8)]
    source = CropSource(images, settings=CropRecipe(halved_from=40))
    assert source.sizes.tolist() == [[40, 60], [39, 60], [20, 30]]
    assert CropSource(images).sizes.tolist() == [[40, 60], [39, 60]]
    crops = source.crops(np.random.default_rng(0), 300, 16)
    # The copy of the first image has its value, and there is none of the second.
    assert (crops == 50).float().mean() == pytest.approx(2 / 3, abs=0.1)
