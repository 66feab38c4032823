from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.writing import check_writable, write_picture, write_rgb
from tests.samples import photo

WRITER = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from PIL import Image
from ikc_deploy import InputError
from ikc_deploy.imaging.writing import write_rgb

image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
path, whole = Path(sys.argv[1]), Path(sys.argv[2])
write_rgb(image, whole)
size = whole.stat().st_size
# Beyond the limit a write is cut off, as by a full disk, and the next one fails.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for missing in (1, 100, size // 3, size - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, resource.RLIM_INFINITY))
    try:
        write_rgb(image, path)
    except InputError as error:
        assert "cannot be written" in str(error), error
    else:
        raise AssertionError(f"{missing} bytes are missing, and nothing was said")
    assert [each.name for each in path.parent.iterdir()] == [whole.name]
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
write_rgb(image, path)
assert path.read_bytes() == whole.read_bytes()
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_a_write_that_is_cut_off_is_an_error(suffix: str, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{name}{suffix}") for name in ("a", "whole")]
    command = [sys.executable, "-c", WRITER, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_transparency_is_not_lost_in_silence(tmp_path: Path, suffix: str) -> None:
    opaque = np.full((8, 8), 255, np.uint8)
    write_picture(Picture(photo(8, 8), opaque), tmp_path / f"opaque{suffix}")
    with pytest.raises(InputError, match=r"cannot hold transparency; use \.png"):
        write_picture(Picture(photo(8, 8), opaque // 2), tmp_path / f"glass{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"opaque{suffix}"]


def test_an_unknown_suffix_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"frame\.xyz.*\.png"):
        write_rgb(photo(8, 8), tmp_path / "frame.xyz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "longest"), [(".webp", 16383), (".jpg", 65500)])
def test_sides_that_a_format_cannot_hold_are_refused_before_the_work(
    suffix: str, longest: int
) -> None:
    fits = Picture(np.zeros((1, longest // 4, 3), np.uint8))
    check_writable(fits, f"a{suffix}", (4, 4 * (longest // 4)))
    with pytest.raises(InputError, match=rf"{suffix} files are limited to {longest}.*\.png"):
        size = 4 * (longest // 4 + 1), 4
        check_writable(Picture(np.zeros((longest // 4 + 1, 1, 3), np.uint8)), f"a{suffix}", size)


@pytest.mark.parametrize(
    "image",
    [photo(8, 8) / 255, photo(8, 8)[0], photo(8, 8)[..., :2], [[1]], np.zeros((0, 8, 3), np.uint8)],
)
def test_what_is_no_picture_is_not_written(tmp_path: Path, image: Any) -> None:
    with pytest.raises(InputError, match="expected an image"):
        write_rgb(image, tmp_path / "a.png")


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + ".png")
    write_rgb(photo(8, 8), path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    picture = Picture(photo(8, 8))
    (tmp_path / "in the way.png").mkdir()
    (tmp_path / "in the way.png" / "old").write_bytes(b"old")
    with pytest.raises(InputError, match=r"in the way\.png' cannot be written: it is a folder"):
        write_picture(picture, tmp_path / "in the way.png")
    with pytest.raises(InputError, match=r"a\.gif.*\.png"):
        write_picture(picture, tmp_path / "a.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["in the way.png"]
    assert (tmp_path / "in the way.png" / "old").read_bytes() == b"old"
