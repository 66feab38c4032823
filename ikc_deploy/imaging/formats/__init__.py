"""File formats and metadata: what `imaging.reading` and `imaging.writing` consist of.

Reading: `png_chunks`, `jpeg_segments` and `tiff_fields` split a file into pixels and metadata
(`split_image`), `pillow_decoder` and `tiff` decode the pixels, and `sample_conversion` converts
them to 8-bit RGB. Writing: `metadata_writing` adapts the metadata to the new image, with `exif`,
`xmp`, `photoshop` (IPTC) and `colour_chunks`.
"""
