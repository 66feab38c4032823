"""Reading image files into a `Picture`, and writing it back.

A `Picture` is upright 8-bit RGB with separate opacity, for every file format:

- EXIF rotation is applied. The ICC profile and all `Metadata` that the written format holds are
  kept, with orientation 1, the new size and no thumbnail. Damaged metadata does not prevent
  reading: it is removed before the pixels are decoded.
- Grey images stay grey: three equal channels in the `Picture`, one channel in the file.
- Palettes become RGB, with alpha if a colour is transparent. CMYK and CIELAB become RGB, without
  their profile, which describes other values.
- 16-bit samples become 8-bit samples. Grey is rounded. Colour keeps the high byte, which is all
  that Pillow decodes and within one level of rounding.
- Animations and files of several pages are rejected. Thumbnails and masks are not counted as
  pages. In a phone's JPEG with a preview or gain map behind the photograph (MPO), the photograph
  is read.

`folders` lists files, `reading` and `tiff` read them, `separation` separates their pixels from
their metadata, `writing` and `metadata_writing` write both.
"""

from ikc_deploy.imaging.folders import (
    IMAGE_SUFFIXES,
    READABLE_SUFFIXES,
    Listing,
    list_folder,
    list_images,
    list_tree,
)
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
    "READABLE_SUFFIXES",
    "Listing",
    "Picture",
    "check_size",
    "check_writable",
    "list_folder",
    "list_images",
    "list_tree",
    "names_other_file",
    "read_picture",
    "read_rgb",
    "write_picture",
    "write_rgb",
]
