from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy.training.jpeg import jpeg
from tests.samples import photo


def through_a_file(image: NDArray[np.uint8], quality: int) -> NDArray[np.int64]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(file)).astype(np.int64)


# 60x74 is no multiple of a block, let alone of two.
@pytest.mark.parametrize("size", [(64, 48), (60, 74)])
def test_it_does_to_pixels_what_a_file_does(size: tuple[int, int]) -> None:
    qualities = [8, 30, 50, 60, 75, 90, 100]
    images = np.stack([photo(*size, seed) for seed in range(len(qualities))])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    levels = jpeg(batch, torch.tensor(qualities)).permute(0, 2, 3, 1).numpy() * 255
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
    for image, quality, measured in zip(images, qualities, levels, strict=True):
        expected = through_a_file(image, quality)
        damage = np.abs(expected - image.astype(np.int64)).mean()
        assert np.abs(measured - expected).mean() < min(1.0, 0.3 * damage), quality
