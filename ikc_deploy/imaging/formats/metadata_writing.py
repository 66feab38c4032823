"""Metadata in the image files that are written: what each format holds, and how."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ikc_deploy.imaging.formats.colour_chunks import colour_space, matrix_profile
from ikc_deploy.imaging.formats.exif import (
    adapted_exif,
    exif_density,
    fields_for_tiff,
    resolution_only,
)
from ikc_deploy.imaging.formats.photoshop import SIGNATURE, adapted_resources
from ikc_deploy.imaging.formats.png_chunks import PNG_SIGNATURE, checksum
from ikc_deploy.imaging.formats.xmp import adapted_xmp
from ikc_deploy.imaging.picture import Density, Metadata, Picture

_SEGMENT: Final = 65533
"""Maximum content of a JPEG segment in bytes."""
_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_COLOURS: Final = {b"GRAY": "grey", b"RGB ": "RGB", b"CMYK": "CMYK", b"Lab ": "Lab"}
"""Colour space in the header of an ICC profile."""


@dataclass
class EncodedMetadata:
    """Metadata as it is written to one file."""

    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of Pillow's `save`."""
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    """PNG chunks that are inserted afterwards: Pillow writes only some kinds."""
    aspect: Density | None = None
    """Aspect ratio of a pixel, which is written into the header of a JPEG afterwards."""
    lost: list[str] = field(default_factory=list)
    """What the format cannot hold."""

    def complete(self, path: Path) -> None:
        """Write what Pillow does not write into the file that it has written."""
        if self.chunks:
            data = path.read_bytes()
            head = len(PNG_SIGNATURE) + 25
            inserted = b"".join(_chunk(*each) for each in self.chunks)
            path.write_bytes(b"".join((data[:head], inserted, memoryview(data)[head:])))
        if self.aspect is not None:
            with path.open("r+b") as file:
                file.seek(13)
                file.write(struct.pack(">BHH", 0, *_whole(self.aspect, 2**16 - 1)))


def encode_metadata(picture: Picture, suffix: str) -> EncodedMetadata:
    """Return the metadata of an image for a file with a suffix, adapted to the image's size.

    Args:
        picture: The image to write, upright.
        suffix: Suffix of the file in lower case.
    """
    metadata, lost = _fitted(picture)
    written = EncodedMetadata(lost=lost)
    profile = _profile(picture, suffix, written)
    if profile is not None:
        written.options["icc_profile"] = profile
    _FORMATS[suffix](metadata, written)
    return written


def _fitted(picture: Picture) -> tuple[Metadata, list[str]]:
    """Return the metadata for the size of the image, and what of it is damaged."""
    found, (height, width) = picture.metadata, picture.size
    exif = None if found.exif is None else adapted_exif(found.exif, height, width)
    xmp = None if found.xmp is None else adapted_xmp(found.xmp, height, width)
    resources = adapted_resources(found.photoshop) if found.photoshop else None
    lost = [
        name
        for name, before, after in (
            ("damaged EXIF", found.exif, exif),
            ("XMP that is not UTF-8", found.xmp, xmp),
        )
        if before and not after
    ]
    density = found.density or (exif_density(exif) if exif else None)
    fitted = replace(found, exif=exif, xmp=xmp, photoshop=resources or None, density=density)
    return fitted, lost


def _profile(picture: Picture, suffix: str, written: EncodedMetadata) -> bytes | None:
    """Return the ICC profile of the file; for formats without PNG's chunks, made of them."""
    profile, chunks = picture.icc_profile, picture.metadata.colour_chunks
    grey = picture.grey and suffix != ".webp"
    if suffix == ".bmp":
        space = colour_space(chunks)
        if profile or (chunks and not (space and space.is_srgb)):
            written.lost.append("ICC profile")
        return None
    if suffix == ".png" or not chunks or (profile and b"cICP" not in dict(chunks)):
        kind = _COLOURS.get(profile[16:20]) if profile else None
        if kind in ("CMYK", "Lab") or (kind == "grey" and not grey):
            written.lost.append(f"ICC profile of {kind} images")
            return None
        return profile
    space = colour_space(chunks)
    if space is None:
        written.lost.append("colour chunks (gAMA, cICP)")
        return None
    return profile if space.is_srgb else matrix_profile(space, grey)


def _png(metadata: Metadata, written: EncodedMetadata) -> None:
    profile = "icc_profile" in written.options
    written.chunks += [
        each for each in metadata.colour_chunks if not (profile and each[0] == b"sRGB")
    ]
    if metadata.density is not None:
        metre = metadata.density.unit != "none"
        density = metadata.density
        if density.unit == "inch":
            density = Density(density.x / 0.0254, density.y / 0.0254, "metre")
        written.chunks.append(
            (b"pHYs", struct.pack(">IIB", *_whole(density, 2**31 - 1), int(metre)))
        )
    if metadata.exif is not None:
        written.chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp is not None:
        written.chunks.append((b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + metadata.xmp))
    written.chunks += metadata.text_chunks
    for comment in metadata.comments:
        texts = PngInfo()
        texts.add_text("Comment", comment.decode("utf-8", "replace").replace("\0", ""))
        written.chunks += [(each[0], each[1]) for each in texts.chunks]
    if metadata.photoshop is not None:
        written.lost.append("IPTC")


def _jpeg(metadata: Metadata, written: EncodedMetadata) -> None:
    segments = []
    if metadata.exif is not None:
        segments.append(("EXIF", 0xE1, _EXIF + metadata.exif))
    if metadata.xmp is not None:
        segments.append(("XMP", 0xE1, _XMP + metadata.xmp))
    for start in range(0, len(metadata.photoshop or b""), _SEGMENT - len(SIGNATURE)):
        part = (metadata.photoshop or b"")[start : start + _SEGMENT - len(SIGNATURE)]
        segments.append(("IPTC", 0xED, SIGNATURE + part))
    comments = (*metadata.comments, *_comments(metadata))
    segments += [("comment", 0xFE, comment) for comment in dict.fromkeys(comments)]
    large = {name for name, _, content in segments if len(content) > _SEGMENT}
    written.lost += [f"{name} (larger than 64 KiB)" for name in sorted(large)]
    written.options["extra"] = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
        for _, marker, content in segments
        if len(content) <= _SEGMENT
    )
    if len(_comments(metadata)) < len(metadata.text_chunks):
        written.lost.append("text chunks")
    density = metadata.density
    if density is not None and density.unit == "none":
        written.aspect = density
    elif density is not None:
        written.options["dpi"] = density.dpi()


def _comments(metadata: Metadata) -> list[bytes]:
    """Return the plain text chunks of a PNG that hold its comment."""
    return [
        content.partition(b"\0")[2].decode("latin-1").encode()
        for kind, content in metadata.text_chunks
        if kind == b"tEXt" and content.startswith(b"Comment\0")
    ]


def _webp(metadata: Metadata, written: EncodedMetadata) -> None:
    exif = metadata.exif
    dpi = None if metadata.density is None else metadata.density.dpi()
    if exif is None and dpi is not None:
        # WebP has no density of its own.
        exif = resolution_only(*dpi)
    if exif is not None:
        written.options["exif"] = exif
    if metadata.xmp is not None:
        written.options["xmp"] = metadata.xmp
    names = {"text chunks": metadata.text_chunks, "comment": metadata.comments}
    names["IPTC"] = (metadata.photoshop,) if metadata.photoshop else ()
    written.lost += [name for name, held in names.items() if held]


def _tiff(metadata: Metadata, written: EncodedMetadata) -> None:
    fields = None
    if metadata.exif is not None:
        fields = fields_for_tiff(metadata.exif)
        if fields is None:
            written.lost.append("EXIF that TIFF cannot hold")
    fields = Image.Exif() if fields is None else fields
    if metadata.xmp is not None:
        fields[700] = metadata.xmp
    if metadata.photoshop is not None:
        fields[34377] = metadata.photoshop
    density = metadata.density
    if density is not None:
        dpi = density.dpi()
        fields[282], fields[283] = dpi or (density.x, density.y)
        fields[296] = 1 if dpi is None else 2
    comments = (*metadata.comments, *_comments(metadata))
    if comments and 270 not in fields:
        fields[270] = comments[0].decode("utf-8", "replace").replace("\0", "")
    written.options["exif"] = fields
    if len(_comments(metadata)) < len(metadata.text_chunks):
        written.lost.append("text chunks")


def _bmp(metadata: Metadata, written: EncodedMetadata) -> None:
    if metadata.density is not None and metadata.density.dpi() is not None:
        written.options["dpi"] = metadata.density.dpi()
    names = {
        "EXIF": metadata.exif,
        "XMP": metadata.xmp,
        "IPTC": metadata.photoshop,
        "text chunks": metadata.text_chunks,
        "comment": metadata.comments,
    }
    written.lost += [name for name, held in names.items() if held]


_FORMATS: Final = {
    ".png": _png,
    ".jpg": _jpeg,
    ".jpeg": _jpeg,
    ".webp": _webp,
    ".tif": _tiff,
    ".tiff": _tiff,
    ".bmp": _bmp,
}


def _whole(density: Density, most: int) -> tuple[int, int]:
    """Return a density in whole numbers from 1 to `most`, with its aspect ratio."""
    larger = max(density.x, density.y)
    factor = most / larger if larger > most else 1.0
    x, y = (max(1, round(factor * side)) for side in (density.x, density.y))
    return x, y


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + checksum(kind, content)
