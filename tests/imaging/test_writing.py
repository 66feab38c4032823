"""Image files on a disk that fills up: complete or absent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WRITER = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from PIL import Image
from ikc_deploy import InputError
from ikc_deploy.imaging.image_io import write_rgb

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
