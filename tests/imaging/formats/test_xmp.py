from __future__ import annotations

import pytest

from ikc_deploy.imaging.formats.xmp import adapted_xmp

HOSTILE = {
    "padding": b" " * 10**6,
    "elements that are not closed": b"<xmp:Thumbnails " * 10**5,
    "attributes without a value": b" hdrgm:a = " * 10**5,
    "sizes without a value": b"<tiff:ImageWidth>" * 10**5,
}


@pytest.mark.parametrize("packet", HOSTILE.values(), ids=HOSTILE)
def test_what_has_nothing_to_change_is_kept(packet: bytes) -> None:
    # In quadratic time this takes longer than anybody waits.
    assert adapted_xmp(packet, 2, 3) == packet


def test_elements_about_other_images_are_removed_and_the_rest_is_kept() -> None:
    packet = (
        b"<a/><xmp:Thumbnails><x/></xmp:Thumbnails><b/><xmp:Thumbnails\n>y</xmp:Thumbnails>"
        b"<xmp:ThumbnailsOfOthers/><c hdrgm:Version='1'\n GCamera:MotionPhoto=\"1\" d='e'/>"
    )
    expected = b"<a/><b/><xmp:ThumbnailsOfOthers/><c d='e'/>"
    assert adapted_xmp(packet, 2, 3) == expected
