from __future__ import annotations

import itertools
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from skimage.color import lab2rgb

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.reading import read_picture
from tests.samples import photo

COLOUR = photo(37, 41)
OPACITY = photo(37, 41, seed=1)[:, :, 0]
LAYOUTS = {
    "grey": ("minisblack", COLOUR[..., :1], False),
    "negative": ("miniswhite", COLOUR[..., :1], False),
    "rgb": ("rgb", COLOUR, False),
    "grey and alpha": ("minisblack", COLOUR[..., :1], True),
    "rgb and alpha": ("rgb", COLOUR, True),
}


def write(path: Path, samples: NDArray[Any], **options: Any) -> Path:
    tifffile.imwrite(path, samples, **cast("Any", {"metadata": None} | options))
    return path


def read(path: Path, samples: NDArray[Any], planar: bool = False, **options: Any) -> Picture:
    stored = np.moveaxis(samples, 2, 0) if planar else samples
    if samples.shape[2] == 1:
        stored = samples[..., 0]
    elif planar:
        options["planarconfig"] = "separate"
    return read_picture(write(path, stored, **options))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("bits", [8, 16])
def test_every_order_of_samples_gives_the_same_picture(
    tmp_path: Path, name: str, bits: int
) -> None:
    kind, shown, opaque = LAYOUTS[name]
    samples = np.dstack((shown, OPACITY)) if opaque else shown
    stored = samples.astype(np.uint16) * 257 if bits == 16 else samples
    extra = {"extrasamples": ["unassalpha"]} if opaque else {}
    expected = 255 - shown if kind == "miniswhite" else shown
    ways = itertools.product((False, True), "<>", (None, "zlib", "lzw"), (None, (16, 16)), (0, 1))
    for planar, order, compression, tile, big in ways:
        if compression == "lzw" and find_spec("imagecodecs") is None:
            continue
        options = {"byteorder": order, "compression": compression, "tile": tile, "bigtiff": big}
        picture = read(tmp_path / "a.tif", stored, planar, photometric=kind, **(options | extra))
        np.testing.assert_array_equal(picture.rgb, np.broadcast_to(expected, COLOUR.shape))
        assert (picture.bits, picture.grey) == (bits, shown.shape[2] == 1)
        assert (picture.alpha is not None) == opaque
        if picture.alpha is not None:
            np.testing.assert_array_equal(picture.alpha, OPACITY)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_premultiplied_colour_is_divided_by_its_opacity(
    tmp_path: Path, bits: int, planar: bool, channels: int
) -> None:
    white = 2**bits - 1
    alpha = np.maximum(OPACITY, 128) / 255
    shown = COLOUR[..., :channels] / 255
    samples = np.rint(white * np.dstack((shown * alpha[..., None], alpha)))
    picture = read(
        tmp_path / "a.tif",
        samples.astype(f"u{bits // 8}"),
        planar,
        photometric="rgb" if channels == 3 else "minisblack",
        extrasamples=["assocalpha"],
    )
    assert picture.grey == (channels == 1) and picture.alpha is not None
    assert np.abs(picture.alpha - 255 * alpha).max() <= 1
    assert np.abs(picture.rgb - 255.0 * np.broadcast_to(shown, COLOUR.shape)).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", ["cielab", "icclab"])
def test_lab_becomes_the_colour_that_it_stands_for(
    tmp_path: Path, bits: int, planar: bool, kind: str
) -> None:
    # Colours inside sRGB: outside, every converter clips in its own way.
    lab = np.stack(
        np.meshgrid([30.0, 50.0, 70.0], [-10.0, 0.0, 12.0], [-11.0, 0.0, 14.0]), -1
    ).reshape(9, 3, 3)
    expected = 255 * lab2rgb(lab)
    unit = 2 ** (bits - 8)
    signed = lab[..., 1:] * unit if kind == "cielab" else (lab[..., 1:] + 128) * unit
    samples = np.dstack((lab[..., :1] * (2**bits - 1) / 100, signed))
    stored = np.rint(samples).astype(np.int64).astype(f"u{bits // 8}")
    picture = read(tmp_path / "a.tif", stored, planar, photometric=kind)
    assert not picture.grey and picture.icc_profile is None
    # Steps of L of 8 bits, and another white point of sRGB.
    assert np.abs(picture.rgb - expected).max() <= 8


def test_inks_become_rgb_at_every_depth(tmp_path: Path) -> None:
    inks = np.dstack((255 - COLOUR, OPACITY // 4))
    expected = np.array(Image.frombytes("CMYK", (41, 37), inks.tobytes()).convert("RGB"))
    depths: list[NDArray[Any]] = [inks, inks.astype(np.uint16) * 257]
    for planar, samples in itertools.product((False, True), depths):
        picture = read(tmp_path / "a.tif", samples, planar, photometric="separated")
        np.testing.assert_array_equal(picture.rgb, expected)
        assert not picture.grey and picture.alpha is None


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14])
@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (1, 1), (2, 3), (3, 1)])
def test_any_number_of_bits(tmp_path: Path, bits: int, kind: int, channels: int) -> None:
    if bits > 8 or (channels == 3 and bits != 8):
        pytest.importorskip("imagecodecs")
    if kind == 3 and bits > 8:
        pytest.skip("palettes have at most 8 bits")
    samples, white = COLOUR[..., :channels].astype(int) * (2**bits - 1) // 255, 2**bits - 1
    table = np.random.default_rng(0).integers(0, 256, (3, 2**bits))
    (tmp_path / "a.tif").write_bytes(packed_tiff(samples, bits, kind, 257 * table))
    picture = read_picture(tmp_path / "a.tif")
    expected = 255 * samples / white
    if kind == 0:
        expected = 255 - expected
    if kind == 3:
        expected = table.T[samples[..., 0]]
    # Colour of more than 8 bits keeps its high byte.
    assert np.abs(picture.rgb - expected).max() <= (1 if kind == 2 and bits > 8 else 0.5)
    assert (picture.grey, picture.bits) == (kind < 2, max(8, bits))


def packed_tiff(samples: NDArray[Any], bits: int, kind: int, table: NDArray[Any]) -> bytes:
    """An uncompressed TIFF, bit by bit: no library writes them all."""
    height, width, channels = samples.shape
    rows = ("".join(format(int(v), f"0{bits}b") for v in row.ravel()) for row in samples)
    data = b"".join(
        int(row + "0" * (-len(row) % 8), 2).to_bytes(-(-len(row) // 8), "big") for row in rows
    )
    data += bytes(len(data) % 2)
    depths = 8 + len(data)
    values = data + struct.pack("<3H", bits, bits, bits) + table.astype("<u2").tobytes()
    fields = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits if channels == 1 else depths),
        (259, 3, 1, 1),
        (262, 3, 1, kind),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, depths - 8),
    ]
    if kind == 3:
        fields.append((320, 3, table.size, depths + 6))
    directory = b"".join(struct.pack("<HHII", *field) for field in fields)
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(values))
        + values
        + struct.pack("<H", len(fields))
        + directory
        + bytes(4)
    )


def test_jpeg_and_fax_inside_are_read(tmp_path: Path) -> None:
    smooth = np.kron(np.arange(20, 260, 40).reshape(2, 3), np.ones((16, 16))).astype(np.uint8)
    colour = np.dstack((smooth, smooth[:, ::-1], smooth[::-1]))
    Image.fromarray(colour).save(tmp_path / "a.tif", compression="jpeg", quality=95)
    assert np.abs(read_picture(tmp_path / "a.tif").rgb - colour.astype(int)).mean() < 4
    black = Image.fromarray(smooth > 128)
    for compression in ("group3", "group4", "packbits", "tiff_lzw"):
        black.save(tmp_path / "b.tif", compression=compression)
        read_back = read_picture(tmp_path / "b.tif")
        np.testing.assert_array_equal(read_back.rgb[..., 0] > 0, smooth > 128)
        assert read_back.grey


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2)])
def test_uncompressed_ycbcr_is_read_with_its_range(tmp_path: Path, across: int, down: int) -> None:
    # A colour for each block of chroma: Y in 16..235, Cb and Cr in 16..240.
    luma, chroma = np.array([[16, 235], [126, 60]]), np.array([[[128, 128], [90, 240]]] * 2)
    each = np.dstack((np.dstack([luma] * (across * down)), chroma)).astype(np.uint8)
    (tmp_path / "a.tif").write_bytes(ycbcr_tiff(each.tobytes(), 2 * across, 2 * down))
    y, cb, cr = (luma - 16) / 219, *((chroma - 128) / 224 * 2).transpose(2, 0, 1)
    colour = np.dstack((y + 0.701 * cr, y - 0.172068 * cb - 0.357068 * cr, y + 0.886 * cb))
    expected = np.kron(255 * colour.clip(0, 1), np.ones((down, across, 1)))
    assert np.abs(read_picture(tmp_path / "a.tif").rgb - expected).max() < 3


def ycbcr_tiff(data: bytes, width: int, height: int) -> bytes:
    """An uncompressed TIFF of YCbCr with video range, two blocks of chroma in each direction."""
    data += bytes(len(data) % 2)
    at = 8 + len(data)
    levels = (16, 235, 128, 240, 128, 240)
    values = struct.pack("<4H12I", 8, 8, 8, 0, *(n for level in levels for n in (level, 1)))
    fields = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, at),
        (259, 3, 1, 1),
        (262, 3, 1, 6),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (530, 3, 2, width // 2 | height // 2 << 16),
        (532, 5, 6, at + 8),
    ]
    directory = b"".join(struct.pack("<HHII", *field) for field in fields)
    return (
        struct.pack("<2sHI", b"II", 42, at + len(values))
        + data
        + values
        + struct.pack("<H", len(fields))
        + directory
        + bytes(4)
    )


def test_thumbnails_and_masks_are_not_pages(tmp_path: Path) -> None:
    small, mask = COLOUR[::4, ::4], COLOUR[..., 0] > 128
    for first in (False, True):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            if first:
                file.write(small, photometric="rgb", subfiletype=1, metadata=None)
            file.write(COLOUR, photometric="rgb", metadata=None)
            file.write(small, photometric="rgb", subfiletype=1, metadata=None)
            file.write(mask, photometric="mask", subfiletype=4, metadata=None)
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").rgb, COLOUR)
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        for _ in range(3):
            file.write(COLOUR, photometric="rgb", metadata=None)
    with pytest.raises(InputError, match=r"b\.tif' holds 3 images"):
        read_picture(tmp_path / "b.tif")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32])
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_without_a_known_white_are_named(
    tmp_path: Path, dtype: type, channels: int
) -> None:
    samples: NDArray[Any] = COLOUR[..., :channels].astype(dtype).squeeze()
    path = write(tmp_path / "a.tif", samples, photometric="rgb" if channels == 3 else "minisblack")
    words = "floating-point numbers" if np.dtype(dtype).kind == "f" else "signed integers"
    with pytest.raises(InputError, match=rf"a\.tif' cannot be read.*{words}.*convert it to 16"):
        read_picture(path)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_file_that_is_cut_short_is_refused(
    tmp_path: Path, planar: bool, dtype: type, compression: str | None
) -> None:
    samples: NDArray[Any] = np.dstack((COLOUR, OPACITY)).astype(dtype)
    stored = np.moveaxis(samples, 2, 0) if planar else samples
    path = tmp_path / "a.tif"
    write(
        path,
        stored,
        photometric="rgb",
        extrasamples=["unassalpha"],
        planarconfig="separate" if planar else "contig",
        compression=compression,
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.9 * len(whole))])
    with pytest.raises(InputError, match=r"a\.tif' cannot be read as an image"):
        read_picture(path)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_nothing_behind_the_end_of_a_file_is_taken_for_pixels(
    tmp_path: Path, compression: str | None
) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(COLOUR).save(path, compression=compression)
    whole = path.read_bytes()
    for missing in (1, 2, 6, 20, 60, 120):
        path.write_bytes(whole[:-missing])
        with pytest.raises(InputError, match=r"a\.tif' cannot be read as an image"):
            read_picture(path)


def test_damaged_metadata_does_not_matter(tmp_path: Path) -> None:
    fields = TiffImagePlugin.ImageFileDirectory_v2()
    fields[700] = b"<xmp " * 400_000
    fields[33723] = b"\xff" * 99
    fields[34665] = 0xFFFFFF00  # EXIF that lies beyond the end
    fields[34853] = 3
    for rest in ({}, {"compression": "tiff_lzw"}):
        Image.fromarray(COLOUR).save(tmp_path / "a.tif", tiffinfo=fields, **cast("Any", rest))
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").rgb, COLOUR)


@pytest.mark.parametrize("name", ["planar16.tif", "contig16.tif", "la.tif", "lab.tif"])
def test_pictures_that_once_came_out_wrong(shared: Path, name: str) -> None:
    (path,) = (shared / "faults").glob(f"*/{name}")
    picture = read_picture(path)
    if name in ("planar16.tif", "contig16.tif"):
        other = read_picture(path.with_name("contig16.tif"))
        np.testing.assert_array_equal(picture.rgb, other.rgb)
        assert picture.bits == 16
    else:
        assert picture.grey == (picture.alpha is not None) == (name == "la.tif")


@pytest.mark.parametrize("kind", ["rgb", "minisblack"])
def test_a_missing_colour_model_is_that_of_the_number_of_samples(tmp_path: Path, kind: str) -> None:
    samples = COLOUR if kind == "rgb" else COLOUR[..., 0]
    path = write(tmp_path / "a.tif", samples, photometric=kind)
    content = path.read_bytes()
    field = struct.pack("<HHI", 262, 3, 1)
    assert content.count(field) == 1
    # A private field takes its place.
    path.write_bytes(content.replace(field, struct.pack("<HHI", 263, 3, 1)))
    np.testing.assert_array_equal(read_picture(path).rgb, np.atleast_3d(samples) + 0 * COLOUR)


@pytest.mark.parametrize("compression", ["webp", "zstd", "lzma"])
def test_compressions_that_builds_of_pillow_lack_are_decoded_by_imagecodecs(
    tmp_path: Path, compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imagecodecs")
    path = write(tmp_path / "a.tif", COLOUR, photometric="rgb", compression=compression)
    picture = read_picture(path)
    assert np.abs(picture.rgb.astype(int) - COLOUR).mean() < (8 if compression == "webp" else 0.01)
    assert not capfd.readouterr().err


def test_a_predictor_with_packbits_is_applied(tmp_path: Path) -> None:
    """`libtiff` ignores it, although writers apply it."""
    pytest.importorskip("imagecodecs")
    path = write(
        tmp_path / "a.tif", COLOUR, photometric="rgb", compression="packbits", predictor=True
    )
    np.testing.assert_array_equal(read_picture(path).rgb, COLOUR)


def test_compressed_ycbcr_is_decoded_by_pillow(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).convert("YCbCr")
    try:
        image.save(tmp_path / "a.tif", compression="zstd")
    except OSError:
        pytest.skip("this build of Pillow has no Zstandard")
    expected = np.asarray(image.convert("RGB"), int)
    assert np.abs(read_picture(tmp_path / "a.tif").rgb - expected).max() <= 1
