"""Image files in and out: what a file shows as a `Picture`, and back.

A `Picture` is upright 8-bit RGB with its transparency beside it, whatever the file was:

- EXIF rotation is applied, and no EXIF is written: of the metadata only the ICC profile is kept.
  Metadata never decides whether a file is read: it is taken off before the pixels are decoded.
- Grey stays grey: three equal channels here, one channel again in the file.
- Palettes become RGB, with alpha if a colour is transparent. CMYK and CIELAB become RGB, without
  their profile, which describes other numbers.
- 16-bit samples become 8-bit ones: grey is rounded, colour keeps the high byte, which is all that
  Pillow decodes and within one level of rounding.
- Animations and files of several pages are refused. Thumbnails and masks beside the picture do not
  count, and a phone's JPEG with a preview or gain map behind the photograph (MPO) is the
  photograph.

`folders` finds files, `reading` and `tiff` read them, `metadata` takes them apart, `writing` writes
them.
"""

from ikc_deploy.imaging.folders import IMAGE_SUFFIXES, Listing, list_folder, list_images
from ikc_deploy.imaging.picture import MAX_PIXELS, Picture
from ikc_deploy.imaging.reading import read_picture, read_rgb
from ikc_deploy.imaging.writing import (
    check_size,
    check_writable,
    names_other_file,
    write_picture,
    write_rgb,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Listing",
    "Picture",
    "check_size",
    "check_writable",
    "list_folder",
    "list_images",
    "names_other_file",
    "read_picture",
    "read_rgb",
    "write_picture",
    "write_rgb",
]
