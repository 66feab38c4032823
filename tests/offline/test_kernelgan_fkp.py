from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ikc_deploy.errors import InputError
from ikc_deploy.offline.critic import Critic, gradient_penalty
from ikc_deploy.offline.kernelgan_fkp import (
    ITERATIONS,
    KernelGanFkp,
    KernelGanFkpSettings,
    x4_kernel,
)
from ikc_deploy.offline.optimize import FitResult, Losses, optimize
from tests.offline.flows import save_untrained
from tests.offline.test_forward_model import lopsided
from tests.samples import photo


def fit(
    lr: NDArray[np.uint8], scale: int, settings: KernelGanFkpSettings, *rest: Any, **more: Any
) -> FitResult:
    return optimize(KernelGanFkp(lr, scale, settings), *rest, **more)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> KernelGanFkpSettings:
    flow = save_untrained(tmp_path_factory.mktemp("flow"), 2)
    return KernelGanFkpSettings(iterations=6, prior=flow, crop=36, batch=4, channels=4)


@pytest.mark.parametrize("scale", [2, 4])
def test_it_gives_a_kernel_of_the_scale_and_a_picture(
    small: KernelGanFkpSettings, scale: int
) -> None:
    result = fit(photo(40, 44), scale, small)
    assert result.image.shape == (40 * scale, 44 * scale, 3)
    assert result.kernel is not None
    assert result.kernel.shape == ((11, 11) if scale == 2 else (19, 19))
    assert result.kernel.sum() == pytest.approx(1)
    assert set(result.history[0]) == {"loss", "critic"}


def test_it_moves_the_kernel(small: KernelGanFkpSettings) -> None:
    gan = KernelGanFkp(photo(40, 44), 2, small)
    before = gan.kernel()
    gan.step()
    assert np.abs(gan.kernel() - before).max() > 1e-7


@pytest.mark.parametrize("broken_after", [1, 4])
def test_a_stopped_fit_goes_on_to_the_very_same_end(
    small: KernelGanFkpSettings, tmp_path: Path, broken_after: int
) -> None:
    lr, state, stop = photo(40, 40), tmp_path / "fit.pt", threading.Event()

    def watch(done: int, total: int, losses: Losses) -> None:
        if done == broken_after:
            stop.set()

    unbroken = fit(lr, 2, small)
    fit(lr, 2, small, watch, stop=stop, state=state)
    torch.manual_seed(99)
    finished = fit(lr, 2, small, state=state)
    assert finished.history == unbroken.history
    assert finished.kernel is not None and unbroken.kernel is not None
    np.testing.assert_array_equal(finished.kernel, unbroken.kernel)
    other = fit(lr, 2, replace(small, seed=1))
    assert other.history != unbroken.history


def test_two_halvings_are_one_quartering_by_the_derived_kernel() -> None:
    small = np.zeros((11, 11))
    # Within what the derived kernel keeps of the whole.
    small[3:8, 3:8] = lopsided(5)
    picture = np.random.default_rng(0).random((32, 48))
    half = ndimage.correlate(picture, small, mode="wrap")[::2, ::2]
    quarter = ndimage.correlate(half, small, mode="wrap")[::2, ::2]
    derived = x4_kernel(small)
    assert derived.shape == (19, 19)
    at_once = ndimage.correlate(picture, derived, mode="wrap")[::4, ::4]
    np.testing.assert_allclose(at_once, quarter, atol=1e-12)


def test_the_penalty_is_that_of_a_linear_critic() -> None:
    class Linear(Critic):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            # A slope of (1, 2, 2) in every pixel: 3, so that the penalty is (3 - 1)^2.
            weights = torch.tensor([1.0, 2.0, 2.0]).view(1, 3, 1, 1)
            return (weights * patches).sum(dim=1, keepdim=True)

    real, fake = torch.rand(2, 2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    penalty = gradient_penalty(Linear(4), real, fake, torch.Generator().manual_seed(0))
    assert float(penalty) == pytest.approx(4)


def test_x3_a_small_picture_and_a_flat_one_are_refused(small: KernelGanFkpSettings) -> None:
    with pytest.raises(InputError, match="x2 and x4, not x3"):
        fit(photo(70, 70), 3, small)
    with pytest.raises(InputError, match="needs at least 64"):
        fit(photo(63, 70), 2, KernelGanFkpSettings(prior=small.prior))
    with pytest.raises(InputError, match="flat"):
        fit(np.full((64, 64, 3), 9, np.uint8), 2, small)


def test_iterations_follow_the_scale_unless_given(small: KernelGanFkpSettings) -> None:
    for scale, iterations in ITERATIONS.items():
        assert KernelGanFkp(photo(40, 40), scale, replace(small, iterations=None)).iterations == (
            iterations
        )


@pytest.mark.parametrize("change", [{"iterations": 0}, {"seed": -1}, {"crop": 31}, {"rate": 0.0}])
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        KernelGanFkpSettings(**change)  # type: ignore[arg-type]
