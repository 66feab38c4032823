from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.reading import read_picture, read_rgb
from ikc_deploy.imaging.suffixes import WRITABLE_SUFFIXES
from ikc_deploy.imaging.writing import write_picture, write_rgb
from tests.samples import photo

ORIENTATION_TAG = 0x0112
# What EXIF 2.32 says a viewer does to the stored rows and columns.
ORIENTATIONS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, 1),
}


def chunk(kind: bytes, data: bytes, broken: bool = False) -> bytes:
    """A chunk of a PNG, with a wrong checksum if `broken`."""
    checksum = zlib.crc32(kind + data) ^ broken
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png16(samples: NDArray[np.integer], colour_type: int) -> bytes:
    """A 16-bit PNG: Pillow writes no 16-bit colour."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return png(samples, 16, colour_type, rows)


def png(
    samples: NDArray[np.integer], bits: int, colour_type: int, rows: bytes, key: bytes = b""
) -> bytes:
    """A PNG, chunk by chunk, with a transparent colour if `key` is not empty."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if key:
        chunks.insert(1, (b"tRNS", key))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = photo(9, 7)[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.dstack([grey] * 3))


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_gives_its_colours_transparent_or_not(tmp_path: Path, transparent: bool) -> None:
    colours = np.array([[250, 10, 20], [0, 200, 5], [30, 40, 90]], np.uint8)
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(colours.tobytes())
    if transparent:
        image.info["transparency"] = 0
    image.save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as saved:
        assert ("transparency" in saved.info) == transparent
    np.testing.assert_array_equal(read_rgb(tmp_path / "p.png"), colours[indices])


FIRST = struct.pack(">IIIIIHHBB", 0, 8, 6, 0, 0, 1, 1, 0, 0)
PALETTE = chunk(b"PLTE", bytes(range(24)))


@pytest.mark.parametrize(
    ("colour_type", "before"),
    [
        (2, chunk(b"tRNS", b"\0")),
        (2, chunk(b"tRNS", bytes(6), broken=True)),
        (3, PALETTE + chunk(b"tRNS", bytes(9))),
        (3, chunk(b"tRNS", bytes(8)) + PALETTE),
        (4, chunk(b"tRNS", bytes(2))),
        (2, chunk(b"acTL", bytes(3))),
        (2, chunk(b"acTL", struct.pack(">II", 2, 0), broken=True)),
        (2, chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", bytes(2))),
        (2, chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", b"\1" + FIRST[1:])),
        (2, chunk(b"acTL", struct.pack(">II", 5, 0)) + chunk(b"fcTL", FIRST)),
    ],
)
def test_invalid_transparency_and_animation_do_not_hide_the_image(
    tmp_path: Path, colour_type: int, before: bytes
) -> None:
    channels = {2: 3, 3: 1, 4: 2}[colour_type]
    samples = photo(6, 8)[..., :channels] & (7 if colour_type == 3 else 255)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    plain = png(samples, 8, colour_type, rows)
    header = len(b"\x89PNG\r\n\x1a\n") + 25
    (tmp_path / "a.png").write_bytes(plain[:header] + before + plain[header:])
    expected = {
        2: samples,
        3: np.arange(24, dtype=np.uint8).reshape(8, 3)[samples[..., 0] & 7],
        4: np.repeat(samples[..., :1], 3, axis=2),
    }[colour_type]
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.rgb, expected)
    assert (picture.alpha is None) == (colour_type != 4)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_real_animation_is_refused(tmp_path: Path, hidden: bool) -> None:
    samples = photo(6, 8)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    plain = png(samples, 8, 2, rows)
    header = len(b"\x89PNG\r\n\x1a\n") + 25
    control = chunk(b"acTL", struct.pack(">II", 1 if hidden else 2, 0))
    first = chunk(b"fcTL", FIRST)
    frame = chunk(b"fdAT", b"\0\0\0\2" + zlib.compress(rows))
    before, after = (b"", first + frame) if hidden else (first, first + frame)
    content = plain[:header] + control + before + plain[header:-12] + after + plain[-12:]
    (tmp_path / "a.png").write_bytes(content)
    with Image.open(tmp_path / "a.png") as image:
        assert getattr(image, "n_frames", 1) == 2
    with pytest.raises(InputError, match="holds 2 images"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_and_the_colour_under_it_kept(tmp_path: Path, mode: str) -> None:
    colour = photo(6, 8)
    alpha = np.zeros((6, 8, 1), np.uint8)
    stored = colour if mode == "RGBA" else colour[:, :, :1]
    Image.fromarray(np.dstack((stored, alpha)), mode).save(tmp_path / "a.png")
    expected = np.broadcast_to(stored, colour.shape)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_level_of_grey_has_the_depth_of_the_file(tmp_path: Path, bits: int) -> None:
    levels = np.arange(2**bits, dtype=np.int64)[:: max(1, 2**bits // 64)][None]
    packed = "".join(format(level, f"0{bits}b") for level in levels[0])
    row = b"\0" + int(packed, 2).to_bytes(-(-len(packed) // 8), "big")
    if len(packed) < 8:
        row = b"\0" + bytes([int(packed.ljust(8, "0"), 2)])
    key = int(levels[0, -1])
    (tmp_path / "a.png").write_bytes(png(levels, bits, 0, row, struct.pack(">H", key)))
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None and picture.grey
    np.testing.assert_array_equal(picture.alpha, np.where(levels == key, 0, 255))
    np.testing.assert_array_equal(picture.rgb[..., 0], np.rint(levels * 255 / (2**bits - 1)))


def test_the_transparent_colour_of_16_bits_is_one_colour(tmp_path: Path) -> None:
    key = np.array([0x1234, 0x5678, 0x9ABC])
    samples = np.array([[key, key ^ [0, 0, 1], key ^ [1, 0, 0], key[::-1]]])
    rows = b"\0" + samples.astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png(samples, 16, 2, rows, key.astype(">u2").tobytes()))
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255, 255, 255]]
    np.testing.assert_array_equal(picture.rgb, samples >> 8)


def test_a_bmp_of_16_bits_per_pixel_has_8_bit_samples(tmp_path: Path) -> None:
    header = struct.pack("<IiiHHII16x", 40, 2, 1, 1, 16, 3, 4)
    content = header + struct.pack("<IIIHH", 0xF800, 0x7E0, 0x1F, 0xF800, 0x7FF)
    (tmp_path / "a.bmp").write_bytes(struct.pack("<2sI4xI", b"BM", 70, 66) + content)
    picture = read_picture(tmp_path / "a.bmp")
    assert picture.rgb.tolist() == [[[255, 0, 0], [0, 255, 255]]]
    assert picture.bits == 8


def test_16_bit_grey_is_rounded_to_8(tmp_path: Path) -> None:
    samples = np.array([[0, 128, 129, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65406, 65535]])
    (tmp_path / "deep.png").write_bytes(png16(samples, 0))
    read = read_rgb(tmp_path / "deep.png")
    assert read[0, :, 0].tolist() == [0, 0, 1, 100, 100, 101, 254, 255]
    np.testing.assert_array_equal(read[..., 1:], np.dstack([read[..., 0]] * 2))


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_samples_that_8_bits_can_hold_are_exact(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    levels = photo(5, 6)
    shown = levels if channels > 2 else levels[:, :, :1]
    alpha = np.full((5, 6, 1), 255, np.uint8)
    stored = shown if channels % 2 else np.dstack((shown, alpha))
    (tmp_path / "deep.png").write_bytes(png16(stored.astype(np.int64) * 257, colour_type))
    picture = read_picture(tmp_path / "deep.png")
    np.testing.assert_array_equal(picture.rgb, np.broadcast_to(shown, levels.shape))
    assert (picture.bits, picture.grey) == (16, channels < 3)
    assert (picture.alpha is None) == (channels % 2 == 1)


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    stored = photo(5, 8)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    Image.fromarray(stored).save(tmp_path / "camera.png", exif=exif)
    np.testing.assert_array_equal(
        read_rgb(tmp_path / "camera.png"), ORIENTATIONS[orientation](stored)
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0, "optimize": True},
        {"restart_marker_blocks": 2},
        {"progressive": True},
    ],
)
def test_a_jpeg_without_its_end_marker_is_read_only_if_its_pixels_are_complete(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(photo(48, 40)).save(path, quality=20, **options)
    whole, expected = path.read_bytes(), read_rgb(path)
    path.write_bytes(whole[:-2])
    np.testing.assert_array_equal(read_rgb(path), expected)
    for missing in (3, 4, 9, 30, len(whole) // 2):
        path.write_bytes(whole[:-missing])
        with pytest.raises(InputError, match="cut short"):
            read_rgb(path)


def test_a_png_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    image = photo(9, 7)
    image[-1] = 0
    rows = [b"\0" + row.tobytes() for row in image]
    (tmp_path / "a.png").write_bytes(png(image, 8, 2, b"".join(rows)))
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), image)
    (tmp_path / "a.png").write_bytes(png(image, 8, 2, b"".join(rows[:-1])))
    with pytest.raises(InputError, match="rows are missing"):
        read_rgb(tmp_path / "a.png")


def test_opacity_of_bmp_that_pillow_ignores_is_not_lost_in_silence(tmp_path: Path) -> None:
    masks = struct.pack("<4I", 0x7C00, 0x3E0, 0x1F, 0x8000)
    header = struct.pack("<IiiHHIIiiII", 56, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0) + masks
    start = struct.pack("<2sIII", b"BM", 0, 0, 14 + len(header))
    (tmp_path / "a.bmp").write_bytes(start + header + struct.pack("<4H", 1, 2, 0x8003, 0x8004))
    with pytest.raises(InputError, match=r"a\.bmp' is a BMP with a bit of transparency"):
        read_picture(tmp_path / "a.bmp")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    write_rgb(photo(64, 64), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"cut\{suffix}' cannot be read"):
        read_rgb(path)


@pytest.mark.parametrize("content", [b"", b"plainly no image"])
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"notes\.png' cannot be read as an image"):
        read_rgb(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no image at .*gone\.png"):
        read_rgb(tmp_path / "gone.png")
    with pytest.raises(InputError, match="cannot be read"):
        read_rgb(tmp_path)


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_more_pixels_than_allowed_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb{suffix}"
    write_rgb(photo(40, 50), path)
    with pytest.raises(InputError, match=r"50x40 pixels.*--max-pixels"):
        read_rgb(path, max_pixels=1999)
    assert read_rgb(path, max_pixels=2000).shape == read_rgb(path, None).shape == (40, 50, 3)


@pytest.mark.parametrize("suffix", [*WRITABLE_SUFFIXES, ".PNG"])
def test_every_suffix_can_be_written_and_read(tmp_path: Path, suffix: str) -> None:
    image, path = photo(48, 40), tmp_path / f"frame{suffix}"
    write_rgb(image, path)
    difference = np.abs(read_rgb(path).astype(int) - image)
    lossy = suffix in (".jpg", ".jpeg", ".webp")
    assert difference.mean() < 4 if lossy else difference.max() == 0
    assert list_images(tmp_path) == [path]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_lossless_file_keeps_all_of_a_picture(
    tmp_path: Path, suffix: str, grey: bool, transparent: bool
) -> None:
    rgb = photo(12, 10)
    if grey:
        rgb = np.repeat(rgb[:, :, :1], 3, axis=2)
    alpha = photo(12, 10, seed=1)[:, :, 0] if transparent else None
    write_picture(Picture(rgb, alpha, grey, b"a profile"), tmp_path / f"p{suffix}")
    picture = read_picture(tmp_path / f"p{suffix}")
    np.testing.assert_array_equal(picture.rgb, rgb)
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(picture.alpha, alpha)
    assert (picture.grey, picture.icc_profile, picture.bits) == (grey, b"a profile", 8)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"text", "its format is not one of"),
        (bytes(2**16), "its format is not one of"),
    ],
)
def test_a_file_that_is_no_image_says_so(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_picture(tmp_path / "a.png")


def test_files_without_an_end_are_not_read(tmp_path: Path) -> None:
    if Path("/dev/zero").exists():
        with pytest.raises(InputError, match="its format is not one of"):
            read_picture("/dev/zero")
    # A sparse file that begins like a PNG.
    with open(tmp_path / "large.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(2**29)
    with pytest.raises(InputError, match=r"more than 256 MiB.*--max-pixels"):
        read_picture(tmp_path / "large.png", max_pixels=100)


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".webp"])
def test_a_file_of_several_pictures_is_refused(tmp_path: Path, suffix: str) -> None:
    first, second = (Image.fromarray(photo(16, 16, seed)) for seed in (0, 1))
    first.save(tmp_path / f"many{suffix}", save_all=True, append_images=[second])
    with pytest.raises(InputError, match=r"holds 2 images"):
        read_rgb(tmp_path / f"many{suffix}")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_samples_without_a_known_white_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(photo(8, 8)[:, :, 0].astype(dtype)).save(tmp_path / "raw.tif")
    with pytest.raises(InputError, match=r"raw\.tif.*convert it to 16 bits"):
        read_rgb(tmp_path / "raw.tif")


def test_no_metadata_keeps_pixels_from_being_read(tmp_path: Path) -> None:
    image = Image.fromarray(photo(24, 20))
    text = PngImagePlugin.PngInfo()
    for number in range(40):
        text.add_itxt(f"XML:com.adobe.xmp{number}", "x" * 2_000_000, zip=True)
    image.save(tmp_path / "a.png", pnginfo=text, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    image.save(tmp_path / "b.png", icc_profile=b"no profile")
    whole = (tmp_path / "b.png").read_bytes()
    damaged = whole.index(b"iCCP") + 16
    (tmp_path / "b.png").write_bytes(whole[:damaged] + bytes(8) + whole[damaged + 8 :])
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), photo(24, 20))
    np.testing.assert_array_equal(read_rgb(tmp_path / "b.png"), photo(24, 20))
    image.save(tmp_path / "c.jpg", quality=95)
    expected = read_rgb(tmp_path / "c.jpg")
    for marker, body in (
        (0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(99)),
        (0xE2, b"ICC_PROFILE\0\x02\x03cut"),
        (0xE2, b"MPF\0II*\0" + b"\xff" * 30),
        (0xED, b"Photoshop 3.0\x008BIM" + b"\xff" * 7),
        (0xE0, b"JFIF"),
        (0xEE, b"Adobe"),
        (0xFE, b"\xff" * 500),
    ):
        plain = (tmp_path / "c.jpg").read_bytes()
        segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
        (tmp_path / "d.jpg").write_bytes(plain[:2] + segment + plain[2:])
        picture = read_picture(tmp_path / "d.jpg")
        np.testing.assert_array_equal(picture.rgb, expected)
        assert picture.icc_profile is None


def test_jpeg_keeps_its_rotation_and_its_profile_in_parts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    profile = bytes(range(256)) * 600
    image = Image.fromarray(photo(24, 20))
    image.save(tmp_path / "a.jpg", exif=exif, icc_profile=profile, quality=95)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.size == (20, 24) and picture.icc_profile == profile
