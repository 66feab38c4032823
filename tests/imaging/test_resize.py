from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ikc_deploy.imaging.resize import bicubic_matrix, resize_bicubic
from tests.samples import photo

FACTORS = [2.0, 3.0, 4.0, 1 / 2, 1 / 3, 1 / 4]


def torch_resize(image: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """PyTorch's antialiased bicubic, whose own border is kept out of the picture."""
    reach = 8 if factor > 1 else round(4 / factor)
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), "symmetric")
    tensor = torch.from_numpy(padded).permute(2, 0, 1)[None]
    size = [round(side * factor) for side in tensor.shape[-2:]]
    resized = F.interpolate(tensor, size, mode="bicubic", antialias=True)
    inner = round(reach * factor)
    return np.asarray(resized[0, :, inner:-inner, inner:-inner].permute(1, 2, 0))


@pytest.mark.parametrize("factor", FACTORS)
def test_resizing_is_torchs_antialiased_bicubic_with_a_symmetric_border(factor: float) -> None:
    image = photo(36, 60).astype(np.float64)
    np.testing.assert_allclose(
        resize_bicubic(image, factor), torch_resize(image, factor), atol=1e-9
    )


@given(length=st.integers(1, 60), factor=st.sampled_from(FACTORS))
def test_every_output_is_a_weighted_mean_of_what_lies_near(length: int, factor: float) -> None:
    matrix = bicubic_matrix(length, factor)
    outputs = round(length * factor)
    assert matrix.shape == (outputs, length)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    centres = (np.arange(outputs) + 0.5) / factor - 0.5
    reach = 2 / min(factor, 1)
    far = np.abs(centres[:, None] - np.arange(length)) >= reach + 1e-9
    mirrored = (centres < reach) | (centres > length - 1 - reach)
    assert not matrix[far & ~mirrored[:, None]].any()


@given(units=st.integers(1, 15), factor=st.sampled_from(FACTORS))
def test_left_and_right_are_alike(units: int, factor: float) -> None:
    matrix = bicubic_matrix(units * max(1, round(1 / factor)), factor)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)
