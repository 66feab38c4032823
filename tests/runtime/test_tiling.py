from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

import ikc_deploy
from ikc_deploy import InputError
from ikc_deploy.runtime.tiling import TileSettings, balanced_sides, measure_halo, upscale_in_tiles
from tests.samples import photo

SCALE = 2


def repeated(frame: NDArray[Any]) -> NDArray[Any]:
    return frame.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def wrong_at_edges(halo: int, shapes: set[tuple[int, ...]]) -> Callable[[Any], Any]:
    """Repeats pixels, and is 100 levels off within `halo` of every edge."""

    def restore(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        shapes.add(tile.shape)
        image = repeated(tile) // 2 + 100
        inner = SCALE * halo
        image[inner:-inner, inner:-inner] -= 100
        return image

    return restore


@given(st.integers(20, 400), st.integers(20, 400), st.integers(1, 24), st.integers(0, 9))
def test_what_is_wrong_at_edges_of_tiles_is_nowhere_in_the_image(
    height: int, width: int, halo: int, seed: int
) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    shapes: set[tuple[int, ...]] = set()
    side = 64
    down, across = balanced_sides((height, width), side, halo)
    assert max(down, across) <= side
    image = upscale_in_tiles(
        frame, (down, across), halo, "uint8", SCALE, wrong_at_edges(halo, shapes)
    )
    assert shapes == {(min(down, height), min(across, width), 3)}
    inner = SCALE * halo
    expected = repeated(frame) // 2
    assert np.array_equal(image[inner:-inner, inner:-inner], expected[inner:-inner, inner:-inner])


@given(st.integers(64, 2000), st.integers(1, 24))
def test_balanced_tiles_are_as_many_as_the_largest_and_no_larger_than_needed(
    length: int, halo: int
) -> None:
    def tiles(side: int) -> int:
        calls = []

        def upscale(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
            calls.append(tile.shape)
            return tile

        strip = np.zeros((8, length, 3), np.uint8)
        upscale_in_tiles(strip, (128, side), halo, "uint8", 1, upscale)
        return len(calls)

    _, side = balanced_sides((8, length), 128, halo)
    assert tiles(side) == tiles(128)
    if length > 128 and side - 16 > 2 * halo + 8:
        assert tiles(side - 16) > tiles(128)


def test_planes_are_tiled_as_frames_are() -> None:
    planes = photo(100, 150).transpose(2, 0, 1).astype(np.float32) / 255

    def restore(tile: NDArray[Any]) -> NDArray[Any]:
        assert tile.flags.c_contiguous
        return tile.repeat(SCALE, axis=1).repeat(SCALE, axis=2)

    image = upscale_in_tiles(planes, (64, 64), 8, "float", SCALE, restore)
    np.testing.assert_allclose(image, restore(np.ascontiguousarray(planes)), atol=1e-6)


@pytest.mark.parametrize("radius", [1, 5, 11])
def test_the_halo_of_a_box_filter_is_its_radius(radius: int) -> None:
    def restore(tile: NDArray[Any]) -> NDArray[Any]:
        size = (2 * radius + 1, 2 * radius + 1, 1)
        # Rising weights, as with an even mean a border of zeros could go unnoticed.
        blurred = ndimage.uniform_filter(tile.astype(float), size, mode="constant")
        return repeated(np.rint(blurred).astype(np.uint8))

    # And the two spare pixels.
    assert measure_halo(restore, 64, "uint8", SCALE) == radius + 2


def test_tiles_smaller_than_the_halo_are_refused() -> None:
    def mean(tile: NDArray[Any]) -> NDArray[Any]:
        return np.full_like(repeated(tile), int(tile[:, :9].mean()))

    with pytest.raises(InputError, match="tiles of 64 LR pixels are too small for this network"):
        measure_halo(mean, 64, "uint8", SCALE)
    with pytest.raises(InputError, match="use larger tiles"):
        upscale_in_tiles(photo(100, 100), (64, 64), 28, "uint8", SCALE, repeated)


@pytest.mark.parametrize("sigma", [0.2, 4.0])
def test_tiles_against_the_whole_frame_are_within_one_level(sigma: float) -> None:
    """The shipped weights, on shading, texture and saturated edges."""
    frame = photo(140, 170)
    frame[40:90, 60:110] = 255 * (np.indices((50, 50)).sum(axis=0) // 5 % 2)[:, :, None]
    with ikc_deploy.load(tile=None) as upscaler:
        # A whole code: noise and compression are estimated on tiles, too, and there differently.
        code = upscaler.bundle.basis.code_of_sigma(sigma)
        whole = upscaler(frame, code=code).image
    with ikc_deploy.load(upscaler.bundle, tile=96) as upscaler:
        tiled = upscaler(frame, code=code).image
    assert np.abs(tiled.astype(int) - whole).max() <= 1


def test_auto_cuts_where_memory_calls_for_it() -> None:
    settings = TileSettings("auto", max_memory=64 * 2**20)
    assert settings.tile_size(90, 90, pixel_bytes=2**13, free=None) is None
    assert settings.tile_size(2160, 3840, pixel_bytes=2**13, free=None) == 80
    assert TileSettings().tile_size(2160, 3840, 2**13, free=None) is None
    assert TileSettings().tile_size(2160, 3840, 2**13, free=2**27) == 80
    assert TileSettings(None).tile_size(2160, 3840, 2**13, free=1) is None
    assert TileSettings(128).tile_size(128, 129, 1, free=None) == 128
    assert TileSettings(128).tile_size(128, 100, 1, free=None) is None


@pytest.mark.parametrize(
    ("tile", "memory", "words"),
    [
        (60, None, 'must be "auto", None, or a side of at least 64 LR pixels, got 60'),
        ("big", None, "got 'big'"),
        (True, None, "got True"),
        (66, None, "a multiple of 16"),
        ("auto", 0, "a positive number of bytes"),
    ],
)
def test_impossible_settings_are_refused(tile: Any, memory: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        TileSettings(tile, memory)


def test_too_little_memory_for_any_tile_says_how_much_is_needed() -> None:
    with pytest.raises(InputError, match=r"2 MiB are too little even for tiles of 64.*need 32"):
        TileSettings("auto", 2**21).tile_size(500, 500, 2**13, None)
