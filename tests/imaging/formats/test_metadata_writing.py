"""Metadata of written images, read back by Pillow, tifffile and ImageCms."""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from PIL.ExifTags import GPS, IFD, Base

from ikc_deploy.imaging.reading import read_picture
from ikc_deploy.imaging.writing import write_picture
from tests.samples import photo

FORMATS = (".png", ".jpg", ".webp", ".tif")
XMP = b"""<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 tiff:Orientation="6" tiff:ImageWidth="24" dc:source="\xc3\xa9t\xc3\xa9">
<exif:PixelXDimension>24</exif:PixelXDimension>
<xmp:Thumbnails><rdf:Alt><rdf:li>AAAA</rdf:li></rdf:Alt></xmp:Thumbnails>
</rdf:Description></rdf:RDF></x:xmpmeta>"""
MAKER_NOTE = bytes(range(200))
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def camera_exif(orientation: int = 6, order: str = "<") -> bytes:
    """EXIF as a camera writes it, with a thumbnail behind it."""
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Orientation] = "Maker", orientation
    exif[Base.ImageWidth], exif[Base.Artist] = 24, "Somebody"
    exif[Base.XResolution], exif[Base.YResolution], exif[Base.ResolutionUnit] = 300.0, 150.0, 2
    exif.get_ifd(IFD.Exif).update(
        {
            Base.ExifImageWidth: 24,
            Base.ExifImageHeight: 20,
            Base.MakerNote: MAKER_NOTE,
            Base.ExposureTime: 0.01,
        }
    )
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitudeRef] = "N"
    exif.endian = order
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    thumbnail = BytesIO()
    Image.fromarray(photo(8, 8)).save(thumbnail, "JPEG")
    return _with_thumbnail(block, thumbnail.getvalue())


def _with_thumbnail(block: bytes, jpeg: bytes) -> bytes:
    order = "<" if block[:1] == b"I" else ">"
    block += bytes(len(block) % 2)
    (first,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, first)
    pointer = first + 2 + 12 * count
    place = len(block) + 2 + 2 * 12 + 4
    second = struct.pack(order + "HHHIIHHIII", 2, 0x0201, 4, 1, place, 0x0202, 4, 1, len(jpeg), 0)
    linked = block[:pointer] + struct.pack(order + "I", len(block)) + block[pointer + 4 :]
    return linked + second + jpeg


def save(path: Path, image: Image.Image, **more: Any) -> None:
    """Write a source image with every metadata block that Pillow writes to its format."""
    options: dict[str, Any] = {"icc_profile": PROFILE, "dpi": (300, 150), **more}
    if path.suffix == ".tif":
        fields = Image.Exif()
        fields.load(camera_exif())
        for pointer in (IFD.Exif, IFD.GPSInfo):
            fields.get_ifd(pointer)
        fields[700] = XMP
        image.save(path, exif=fields, **options)
        return
    if path.suffix == ".png":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("parameters", "steps: 20, été ☃")
        texts.add_text("Title", "plain", zip=True)
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options["pnginfo"] = texts
    else:
        options["xmp"] = XMP
    if path.suffix == ".jpg":
        options["comment"] = "été".encode()
    image.save(path, exif=b"Exif\0\0" + camera_exif(), **options)


def enlarged(source: Path, target: Path, factor: int = 2) -> tuple[str, ...]:
    """Write `source` to `target` with its pixels repeated, as an upscaler would."""
    picture = read_picture(source)
    rgb = picture.rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    return write_picture(replace(picture, rgb=rgb), target)


def packet(image: Image.Image) -> bytes:
    """The XMP of an image; Pillow returns text for PNG."""
    xmp = image.info["xmp"]
    return xmp if isinstance(xmp, bytes) else xmp.encode()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("written", FORMATS)
def test_every_block_is_kept_and_agrees_with_the_new_pixels(
    tmp_path: Path, suffix: str, written: str
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{written}"
    save(source, Image.fromarray(photo(20, 24)))
    enlarged(source, target)
    with Image.open(target) as image:
        assert image.size == (40, 48)  # turned by 90 degrees, and enlarged twice
        exif = image.getexif()
        assert exif[Base.Make] == "Maker" and exif[Base.Artist] == "Somebody"
        assert exif.get(Base.Orientation, 1) == 1
        details = exif.get_ifd(IFD.Exif)
        assert (details[Base.ExifImageWidth], details[Base.ExifImageHeight]) == (40, 48)
        assert details[Base.MakerNote] == MAKER_NOTE
        assert float(details[Base.ExposureTime]) == pytest.approx(0.01)
        assert exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitudeRef] == "N"
        assert not exif.get_ifd(IFD.IFD1)
        assert image.info["icc_profile"] == PROFILE
        xmp = packet(image)
        assert b'tiff:Orientation="1"' in xmp and b'tiff:ImageWidth="40"' in xmp
        assert b"<exif:PixelXDimension>40<" in xmp and b"Thumbnails" not in xmp
        assert 'dc:source="été"'.encode() in xmp
        if written != ".webp":
            # Turned by 90 degrees, horizontal and vertical density are exchanged.
            assert image.info["dpi"] == pytest.approx((150, 300), abs=0.02)
        if written == suffix == ".png":
            assert isinstance(image, PngImagePlugin.PngImageFile)
            assert image.text["parameters"] == "steps: 20, été ☃" and image.text["Title"] == "plain"
        if suffix == ".jpg" and written in (".jpg", ".png"):
            comment = image.info["comment" if written == ".jpg" else "Comment"]
            assert (comment.decode() if isinstance(comment, bytes) else comment) == "été"
    assert b"JFIF" not in target.read_bytes()[100:]  # the thumbnail's bytes are gone


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_keeps_its_places_in_both_byte_orders(
    tmp_path: Path, order: str, orientation: int
) -> None:
    Image.fromarray(photo(20, 24)).save(
        tmp_path / "a.jpg", exif=b"Exif\0\0" + camera_exif(orientation, order)
    )
    enlarged(tmp_path / "a.jpg", tmp_path / "b.jpg", 4)
    with Image.open(tmp_path / "b.jpg") as image:
        exif, size = image.getexif(), image.size
        details = exif.get_ifd(IFD.Exif)
        assert exif[Base.Orientation] == 1 and exif[Base.ImageWidth] == size[0]
        assert (details[Base.ExifImageWidth], details[Base.ExifImageHeight]) == size
        x, y = (300, 150) if orientation < 5 else (150, 300)
        assert (exif[Base.XResolution], exif[Base.YResolution]) == (x, y)
        before, after = camera_exif(orientation, order), image.info["exif"][6:]
        assert before.find(MAKER_NOTE) == after.find(MAKER_NOTE) > 0


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_exif_never_prevents_writing(data: st.DataObject) -> None:
    exif = bytearray(camera_exif())
    for _ in range(data.draw(st.integers(1, 8))):
        exif[data.draw(st.integers(0, len(exif) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(exif[: data.draw(st.integers(1, len(exif)))])
    stored = BytesIO()
    Image.fromarray(photo(8, 8)).save(stored, "JPEG", exif=b"Exif\0\0" + cut)
    with _folder() as folder:
        (folder / "a.jpg").write_bytes(stored.getvalue())
        for suffix in FORMATS:
            enlarged(folder / "a.jpg", folder / f"b{suffix}")
            assert read_picture(folder / f"b{suffix}").rgb.size == 4 * 8 * 8 * 3


def _folder() -> Any:
    from contextlib import contextmanager
    from tempfile import TemporaryDirectory

    @contextmanager
    def opened() -> Any:
        with TemporaryDirectory() as name:
            yield Path(name)

    return opened()


def png(chunks: list[tuple[bytes, bytes]], grey: bool = False) -> bytes:
    """A PNG of one colour, (128, 128, 128), with chunks before its pixels."""
    row = b"\0" + bytes([128]) * (16 if grey else 48)
    header = struct.pack(">IIBBBBB", 16, 16, 8, 0 if grey else 2, 0, 0, 0)
    pixels = zlib.compress(row * 16)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


CHUNKS = {
    "linear": [(b"gAMA", struct.pack(">I", 100000))],
    "gamma 1.8": [(b"gAMA", struct.pack(">I", 55556))],
    "P3": [(b"cICP", bytes((12, 13, 0, 1)))],
    "PQ": [
        (b"cICP", bytes((9, 16, 0, 1))),
        (b"mDCV", bytes(24)),
        (b"cLLI", struct.pack(">II", 10**7, 10**6)),
    ],
    "sRGB": [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455))],
}


@pytest.mark.parametrize("name", CHUNKS)
def test_colour_chunks_are_kept_in_png(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(png([*CHUNKS[name], (b"pHYs", struct.pack(">IIB", 3, 4, 0))]))
    assert enlarged(tmp_path / "a.png", tmp_path / "b.png") == ()
    written = (tmp_path / "b.png").read_bytes()
    for kind, content in CHUNKS[name]:
        assert struct.pack(">I", len(content)) + kind + content in written
        assert written.find(kind) < written.find(b"IDAT")
    assert b"pHYs" + struct.pack(">IIB", 3, 4, 0) in written
    with Image.open(tmp_path / "b.png") as image:  # checks every checksum
        image.load()


@pytest.mark.parametrize(("name", "level"), [("linear", 188), ("gamma 1.8", 147), ("sRGB", 128)])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
def test_other_formats_get_an_icc_profile_with_the_same_colours(
    tmp_path: Path, name: str, level: int, grey: bool, suffix: str
) -> None:
    """Level 128 under a gamma g is 255 * f((128/255)**g) in sRGB, with sRGB's curve f."""
    (tmp_path / "a.png").write_bytes(png(CHUNKS[name], grey))
    assert enlarged(tmp_path / "a.png", tmp_path / f"b{suffix}") == ()
    with Image.open(tmp_path / f"b{suffix}") as image:
        profile = image.info.get("icc_profile")
        assert (profile is None) == (name == "sRGB")
        if profile is not None:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            shown = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            assert shown is not None
            levels = np.asarray(shown, int)
        else:
            levels = np.asarray(image.convert("RGB"), int)
        assert np.abs(levels - level).max() <= 2


def test_what_a_format_cannot_hold_is_named(tmp_path: Path) -> None:
    (tmp_path / "hdr.png").write_bytes(png(CHUNKS["PQ"]))
    assert enlarged(tmp_path / "hdr.png", tmp_path / "b.jpg") == ("colour chunks (gAMA, cICP)",)
    save(tmp_path / "a.png", Image.fromarray(photo(20, 24)))
    assert enlarged(tmp_path / "a.png", tmp_path / "b.bmp") == (
        *("ICC profile", "EXIF", "XMP", "text chunks"),
    )
    with Image.open(tmp_path / "b.bmp") as image:
        assert image.info["dpi"] == pytest.approx((150, 300), abs=0.1)
    assert enlarged(tmp_path / "a.png", tmp_path / "b.webp") == ("text chunks",)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(photo(20, 24)).save(tmp_path / "c.png", icc_profile=lab)
    assert enlarged(tmp_path / "c.png", tmp_path / "d.png") == ("ICC profile of Lab images",)


IPTC = b"\x1c\x02\x78\x00\x05hello"


def resource(number: int, content: bytes) -> bytes:
    """One of Photoshop's image resources."""
    return (
        struct.pack(">4sHHI", b"8BIM", number, 0, len(content)) + content + bytes(len(content) % 2)
    )


def test_iptc_is_kept_in_jpeg_and_tiff_without_thumbnails(tmp_path: Path) -> None:
    block = resource(0x0404, IPTC) + resource(1036, b"a thumbnail")
    segment = b"Photoshop 3.0\0" + block
    extra = struct.pack(">HH", 0xFFED, 2 + len(segment)) + segment
    Image.fromarray(photo(8, 8)).save(tmp_path / "a.jpg", extra=extra)
    for suffix in (".jpg", ".tif"):
        assert enlarged(tmp_path / "a.jpg", tmp_path / f"b{suffix}") == ()
        written = (tmp_path / f"b{suffix}").read_bytes()
        assert IPTC in written and b"a thumbnail" not in written
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["photoshop"] == {0x0404: IPTC}
    tifffile.imwrite(
        tmp_path / "c.tif", photo(8, 8), metadata=None, extratags=[(33723, 7, None, IPTC, True)]
    )
    enlarged(tmp_path / "c.tif", tmp_path / "d.jpg")
    with Image.open(tmp_path / "d.jpg") as image:
        assert image.info["photoshop"] == {0x0404: IPTC}


def test_blocks_that_imagemagick_writes_as_text_are_read(tmp_path: Path) -> None:
    block = b"Exif\0\0" + camera_exif()
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()
    chunk = (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    (tmp_path / "a.png").write_bytes(png([chunk]))
    enlarged(tmp_path / "a.png", tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif()[Base.Make] == "Maker"
        assert image.getexif()[Base.Orientation] == 1
    assert b"Raw profile" not in (tmp_path / "b.png").read_bytes()


def test_descriptions_of_the_layout_of_samples_are_not_copied(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", photo(8, 10), resolution=(200, 100))
    enlarged(tmp_path / "a.tif", tmp_path / "b.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tifffile.imread(tmp_path / "b.tif").shape == (16, 20, 3)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages.first.tags["XResolution"].value[0] == 200
        assert "ImageDescription" not in file.pages.first.tags


def test_large_blocks_do_not_break_a_jpeg(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode() + " " * 70000, zip=True)
    Image.fromarray(photo(8, 8)).save(tmp_path / "a.png", pnginfo=texts)
    assert enlarged(tmp_path / "a.png", tmp_path / "b.jpg") == ("XMP (larger than 64 KiB)",)
    assert enlarged(tmp_path / "a.png", tmp_path / "b.png") == ()


def test_avif_is_read_with_its_rotation_and_metadata(tmp_path: Path) -> None:
    pytest.importorskip("PIL._avif", reason="this Pillow reads no AVIF")
    patches = np.kron(np.arange(20, 260, 40).reshape(2, 3), np.ones((16, 16))).astype(np.uint8)
    stored = np.dstack([patches] * 3)
    exif = Image.Exif()
    exif[Base.Orientation], exif[Base.Make] = 6, "Maker"
    Image.fromarray(stored).save(
        tmp_path / "a.avif",
        exif=exif,
        xmp=XMP,
        icc_profile=PROFILE,
        quality=100,
        subsampling="4:4:4",
    )
    picture = read_picture(tmp_path / "a.avif")
    assert np.abs(picture.rgb.astype(int) - np.rot90(stored, -1)).max() <= 4
    assert picture.icc_profile == PROFILE
    enlarged(tmp_path / "a.avif", tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif()[Base.Make] == "Maker" and image.getexif()[Base.Orientation] == 1
        assert b'tiff:Orientation="1"' in packet(image)


def test_heic_is_read_with_its_metadata(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    patches = np.kron(np.arange(20, 260, 40).reshape(2, 3), np.ones((32, 32))).astype(np.uint8)
    stored = Image.fromarray(np.dstack([patches] * 3))
    exif = Image.Exif()
    exif[Base.Make] = "Maker"
    heic = pillow_heif.from_pillow(stored)
    heic.save(
        tmp_path / "a.heic", exif=exif.tobytes(), icc_profile=PROFILE, quality=100, chroma=444
    )
    picture = read_picture(tmp_path / "a.heic")
    assert np.abs(picture.rgb.astype(int) - np.asarray(stored)).max() <= 6
    assert picture.bits == 8
    enlarged(tmp_path / "a.heic", tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif()[Base.Make] == "Maker" and image.info["icc_profile"] == PROFILE
    deep = np.asarray(stored).astype(np.uint16) * 257
    heic = pillow_heif.from_bytes("RGB;16", stored.size, deep.tobytes())
    heic.save(tmp_path / "c.heic", quality=100, chroma=444)
    picture = read_picture(tmp_path / "c.heic")
    assert picture.bits == 10
    assert np.abs(picture.rgb.astype(int) - np.asarray(stored)).max() <= 6
