from __future__ import annotations

import numpy as np
import pytest
import torch

from ikc_deploy.networks.layers import statistics


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_statistics_are_mean_and_deviation_over_space(
    dtype: torch.dtype, result: torch.dtype
) -> None:
    # Sums of these squares overflow float16.
    features = torch.from_numpy(np.random.default_rng(0).normal(300, 90, (2, 4, 9, 7))).to(dtype)
    exact = features.double().numpy()
    expected = np.concatenate((exact.mean(axis=(2, 3)), exact.std(axis=(2, 3))), axis=1)
    measured = statistics(features)
    assert measured.dtype == result
    np.testing.assert_allclose(measured, expected, rtol=1e-5)


def test_statistics_of_a_flat_image_have_a_finite_gradient() -> None:
    features = torch.ones(1, 2, 5, 5, requires_grad=True)
    statistics(features).sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
