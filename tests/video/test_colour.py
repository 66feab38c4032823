from __future__ import annotations

from itertools import product
from typing import Any, cast

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from ikc_deploy.errors import VideoError
from ikc_deploy.video.colour import Colour, FromRgb, ToRgb, infer_colour

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Red's and blue's share of luma, by matrix (ITU-R BT.709, BT.601, BT.2020)."""

CASES = list(product(WEIGHTS, (False, True), ("yuv420p", "yuv420p10le", "yuv422p10le", "yuv444p")))


def matrix_of(colour: Colour) -> NDArray[np.float64]:
    red, blue = WEIGHTS[colour.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    cb = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    cr = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    return np.stack([luma, cb, cr])


def levels(bits: int, full: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Codes of zero, and of the span from 0 to 1, of Y, Cb, Cr."""
    if full:
        return np.array([0, 2 ** (bits - 1), 2 ** (bits - 1)]), np.full(3, 2.0**bits - 1)
    return 2 ** (bits - 8) * np.array([16, 128, 128]), 2 ** (bits - 8) * np.array([219.0, 224, 224])


def yuv_of(rgb: NDArray[Any], colour: Colour, bits: int) -> NDArray[np.float64]:
    zero, span = levels(bits, colour.full_range)
    return zero + span * (rgb / 255 @ matrix_of(colour).T)


def rgb_of(yuv: NDArray[Any], colour: Colour, bits: int) -> NDArray[np.float64]:
    zero, span = levels(bits, colour.full_range)
    return np.clip(255 * ((yuv - zero) / span @ np.linalg.inv(matrix_of(colour)).T), 0, 255)


def planes(frame: av.VideoFrame, bits: int) -> list[NDArray[Any]]:
    dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
    return [
        np.frombuffer(cast("Any", plane), dtype).reshape(plane.height, -1)[:, : plane.width]
        for plane in frame.planes
    ]


def patches(seed: int = 0) -> NDArray[np.uint8]:
    """48 flat patches of 16x16 pixels: bars, greys and random colours."""
    bars = np.array(list(product((0, 255), repeat=3)))
    greys = np.linspace(0, 255, 8).round()[:, None].repeat(3, axis=1)
    drawn = np.random.default_rng(seed).integers(0, 256, (32, 3))
    colours = np.concatenate([bars, greys, drawn]).reshape(6, 8, 3)
    return colours.repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)


def centres(image: NDArray[Any]) -> NDArray[np.float64]:
    """The middle pixel of every patch of a plane or picture, whatever its subsampling."""
    rows, columns = image.shape[0] // 6, image.shape[1] // 8
    return image[rows // 2 :: rows, columns // 2 :: columns].astype(np.float64)


@pytest.mark.parametrize(("matrix", "full", "name"), CASES)
def test_both_ways_are_the_formula_within_rounding(matrix: int, full: bool, name: str) -> None:
    bits = 10 if "10" in name else 8
    colour = Colour(matrix, full)
    coded = FromRgb(colour, name)(patches())
    assert coded.format.name == name
    codes = np.stack([centres(plane) for plane in planes(coded, bits)], axis=-1)
    # Half a level, and what libswscale's fixed point adds.
    assert np.abs(codes - yuv_of(centres(patches()), colour, bits)).max() < 0.75
    rgb = centres(ToRgb(colour)(coded))
    assert np.abs(rgb - rgb_of(codes, colour, bits)).max() < 0.55


@pytest.mark.parametrize(("matrix", "full", "name"), CASES)
def test_a_grey_ramp_survives(matrix: int, full: bool, name: str) -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(4)[None, :, None].repeat(16, 0).repeat(3, 2)
    colour = Colour(matrix, full)
    back = ToRgb(colour)(FromRgb(colour, name)(ramp))
    # 8-bit limited luma has 220 levels for 256 greys, so some greys must move by one.
    assert np.abs(back.astype(int) - ramp).max() <= (0 if full and name == "yuv444p" else 1)
    assert abs(back.mean() - ramp.mean()) < 0.1


def test_values_beyond_the_nominal_range_are_clipped() -> None:
    frame = av.VideoFrame(32, 16, "yuv420p")
    for plane, value in zip(planes(frame, 8), (np.arange(32) * 8, 240, 16), strict=True):
        plane[:] = value
    rgb = ToRgb(Colour(1))(frame)
    assert (rgb[:, 0] == (0, rgb[0, 0, 1], rgb[0, 0, 2])).all() and rgb[0, -1, 2] == 255


def test_chroma_lies_at_the_left_of_its_two_pixels() -> None:
    colour = Colour(1)
    ramp = np.full((32, 64, 3), 128, np.uint8)
    ramp[:, :, 2] = 20 + 3 * np.arange(64)
    coded = FromRgb(colour, "yuv420p10le")(ramp)
    cb = planes(coded, 10)[1][8, 4:28].astype(float)
    expected = yuv_of(ramp[16], colour, 10)[:, 1]
    positions = np.interp(cb, expected, np.arange(64))
    np.testing.assert_allclose(positions, 2 * np.arange(4, 28), atol=0.2)


@pytest.mark.parametrize(
    ("size", "name", "said", "expected"),
    [
        ((1920, 1080), "yuv420p", {}, Colour(1, False, 1, 1)),
        ((720, 480), "yuv420p", {}, Colour(6, False, 6, 6)),
        ((720, 576), "yuv420p", {}, Colour(5, False, 5, 6)),
        ((320, 180), "yuv420p", {}, Colour(6, False, 1, 1)),
        ((480, 854), "yuv420p", {}, Colour(6, False, 1, 1)),
        ((720, 1280), "yuv420p", {}, Colour(1, False, 1, 1)),
        ((320, 240), "yuvj420p", {}, Colour(6, True, 1, 1)),
        ((320, 240), "yuv420p", {"colour_range": 2, "matrix": 1}, Colour(1, True, 1, 1)),
        ((1920, 1080), "yuv420p10le", {"matrix": 9, "primaries": 9}, Colour(9, False, 9, 1)),
        ((64, 64), "gbrp", {"matrix": 0}, Colour(1, False, 1, 1)),
    ],
)
def test_colour_is_read_or_inferred(
    size: tuple[int, int], name: str, said: dict[str, int], expected: Colour
) -> None:
    assert infer_colour(*size, name, **said) == expected


def test_a_matrix_that_cannot_be_computed_is_refused() -> None:
    with pytest.raises(VideoError, match=r"colour matrix 8 .* is not supported"):
        infer_colour(64, 64, "yuv420p", matrix=8)


def test_every_code_point_is_converted_and_only_those_with_a_meaning_are_kept() -> None:
    """libswscale refuses reserved ones, and transfers that it has no curve for."""
    for point in range(24):
        colour = infer_colour(64, 64, "yuv420p", 1, 1, point, point)
        assert colour.transfer in (1, *range(4, 19)) and colour.primaries in (1, *range(4, 13), 22)
        frame = av.VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), format="yuv420p")
        frame.color_primaries = frame.color_trc = point
        rgb = ToRgb(colour)(frame)
        assert np.abs(rgb.astype(int) - 130).max() <= 1
    assert infer_colour(64, 64, "yuv420p", 3).matrix == 6
