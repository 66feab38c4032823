from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from ikc_deploy.imaging.torch_ops import resize
from ikc_deploy.offline.ike import losses
from ikc_deploy.offline.ike.schedule import BICUBIC, ENERGY, LEARNING_RATE, Schedule
from tests.samples import photo

A, B = photo(30, 36, seed=1) / 255, photo(30, 36, seed=2) / 255
LUMA = np.array([0.299, 0.587, 0.114])


def batch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_energy_is_the_distance_of_blurred_luma() -> None:
    blurred = [ndimage.gaussian_filter(x @ LUMA, 3.0, mode="nearest", radius=9) for x in (A, B)]
    expected = np.abs(blurred[0] - blurred[1]).mean()
    assert losses.energy(batch(A), batch(B)).item() == pytest.approx(expected)
    grey = [batch((x @ LUMA)[:, :, None]) for x in (A, B)]
    assert losses.energy(*grey).item() == pytest.approx(expected)


def test_interpolation_counts_where_the_bicubic_image_has_no_edge() -> None:
    rows, columns = np.gradient(np.pad(B @ LUMA, 1, "edge"))
    smooth = np.hypot(rows, columns)[1:-1, 1:-1] < 0.04
    assert 0.1 < smooth.mean() < 0.9
    expected = (np.abs(A - B) * smooth[:, :, None]).mean()
    assert losses.interpolation(batch(A), batch(B)).item() == pytest.approx(expected)


def test_total_variation_is_the_mean_difference_of_neighbours() -> None:
    expected = np.abs(np.diff(A, axis=0)).mean() + np.abs(np.diff(A, axis=1)).mean()
    assert losses.total_variation(batch(A)).item() == pytest.approx(expected)


def test_likeness_is_nothing_where_the_scores_are_right() -> None:
    scores = torch.tensor([1.0, 0.0])
    assert losses.lsgan_loss(scores[0], real=True) == losses.lsgan_loss(scores[1], real=False) == 0
    assert losses.lsgan_loss(scores, real=True) == losses.lsgan_loss(scores, real=False) == 0.5


@pytest.mark.parametrize("factor", [0.5, 0.25, 2, 4])
def test_resizing_is_pytorchs_bicubic_away_from_the_border(factor: float) -> None:
    image = torch.rand(2, 3, 48, 56, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(
        image, scale_factor=factor, mode="bicubic", antialias=True
    )
    inside = slice(round(16 * factor), -round(16 * factor))
    found = resize(image, factor)
    assert found.shape == expected.shape
    torch.testing.assert_close(found[..., inside, inside], expected[..., inside, inside])


def test_bicubic_shrinking_is_learnt_first_and_then_let_go() -> None:
    plan = Schedule(1000)
    for _ in range(50):
        plan.advance(bicubic_loss=1e-2)
    assert (plan.bicubic, plan.energy) == (BICUBIC, 0)
    plan.advance(bicubic_loss=1e-5)
    assert plan.energy == ENERGY and plan.bicubic < BICUBIC
    for _ in range(300):
        plan.advance(bicubic_loss=1e-2)
    assert (plan.bicubic, plan.energy) == (0, ENERGY)


def test_bicubic_shrinking_that_is_never_met_is_let_go_after_a_tenth() -> None:
    plan = Schedule(1000)
    for done in range(110):
        assert (plan.energy > 0) == (done >= 100)
        plan.advance(bicubic_loss=1.0)


def test_the_rate_falls_tenfold_at_every_quarter() -> None:
    plan, rates = Schedule(3000), []
    for _ in range(3000):
        rates.append(plan.learning_rate)
        plan.advance(0.0)
    for quarter in range(4):
        assert rates[750 * quarter : 750 * (quarter + 1)] == pytest.approx(
            [LEARNING_RATE * 10.0**-quarter] * 750
        )
