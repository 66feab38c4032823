from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.offline.dip_fkp import DipFkp, DipFkpSettings
from ikc_deploy.offline.optimize import FitResult, Losses, optimize
from tests.offline.flows import save_untrained
from tests.samples import photo


def fit(
    lr: NDArray[np.uint8], scale: int, settings: DipFkpSettings, *rest: Any, **more: Any
) -> FitResult:
    return optimize(DipFkp(lr, scale, settings), *rest, **more)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> DipFkpSettings:
    """A small network and all three phases within a few iterations."""
    return DipFkpSettings(
        iterations=10,
        prior=save_untrained(tmp_path_factory.mktemp("flow"), 2),
        channels=8,
        levels=3,
        skip=4,
        similarity_iterations=5,
        frozen_iterations=3,
    )


def test_it_explains_the_picture_better_and_better(small: DipFkpSettings) -> None:
    lr = photo(34, 32)
    result = fit(lr, 2, replace(small, iterations=60))
    assert result.image.shape == (68, 64, 3) and result.image.dtype == np.uint8
    assert result.kernel is not None and result.kernel.shape == (11, 11)
    assert result.kernel.sum() == pytest.approx(1)
    assert result.complete
    errors = [losses["mse"] for losses in result.history]
    assert errors[-1] < 0.3 * errors[0]
    # SSIM first, then the squared error.
    assert result.history[4]["loss"] != result.history[4]["mse"]
    assert result.history[5]["loss"] == result.history[5]["mse"]


@pytest.mark.parametrize("broken_after", [2, 4, 8])
def test_a_stopped_fit_goes_on_to_the_very_same_end(
    small: DipFkpSettings, tmp_path: Path, broken_after: int
) -> None:
    lr, state, stop = photo(32, 32), tmp_path / "fit.pt", threading.Event()

    def watch(done: int, total: int, losses: Losses) -> None:
        if done == broken_after:
            stop.set()

    unbroken = fit(lr, 2, small)
    stopped = fit(lr, 2, small, watch, stop=stop, state=state)
    assert not stopped.complete and len(stopped.history) == broken_after
    torch.manual_seed(99)
    finished = fit(lr, 2, small, state=state)
    assert finished.history == unbroken.history
    np.testing.assert_array_equal(finished.image, unbroken.image)
    assert finished.kernel is not None and unbroken.kernel is not None
    np.testing.assert_array_equal(finished.kernel, unbroken.kernel)


def test_more_iterations_go_on_with_fewer_and_other_settings_do_not(
    small: DipFkpSettings, tmp_path: Path
) -> None:
    lr, state = photo(32, 32), tmp_path / "fit.pt"
    fit(lr, 2, replace(small, iterations=4), state=state)
    longer = fit(lr, 2, small, state=state)
    assert longer.history == fit(lr, 2, small).history
    with pytest.raises(InputError, match="other settings"):
        fit(lr, 2, replace(small, seed=1), state=state)
    with pytest.raises(InputError, match="another image"):
        fit(photo(32, 32, seed=1), 2, small, state=state)


def test_the_kernel_waits_for_the_picture(small: DipFkpSettings) -> None:
    kernels = [fit(photo(32, 32), 2, replace(small, iterations=n)).kernel for n in (1, 3, 4, 5)]
    start, frozen, moved, further = (kernel for kernel in kernels if kernel is not None)
    np.testing.assert_allclose(start, frozen, atol=1e-7)
    # The kernel of the fourth iteration is still that of its beginning.
    np.testing.assert_allclose(start, moved, atol=1e-7)
    assert np.abs(further - start).max() > 1e-5


def test_alignment_moves_the_picture_and_nothing_else(small: DipFkpSettings) -> None:
    centre, theirs = (
        fit(photo(32, 32), 2, replace(small, alignment=alignment))
        for alignment in ("centre", "fkp")
    )
    np.testing.assert_array_equal(centre.image[1:, 1:], theirs.image[:-1, :-1])
    assert centre.history == theirs.history


def test_a_grey_picture_is_fitted(small: DipFkpSettings) -> None:
    grey = np.repeat(photo(32, 40)[:, :, :1], 3, axis=2)
    assert fit(grey, 2, replace(small, iterations=2)).image.shape == (64, 80, 3)


@pytest.mark.parametrize(
    "lr,scale,words",
    [
        (photo(31, 40), 2, "40x31 pixels"),
        (np.full((40, 40, 3), 9, np.uint8), 2, "flat"),
        (np.full((40, 40, 3), (9, 20, 200), np.uint8), 2, "flat"),
        (photo(40, 40)[:, :, 0], 2, r"RGB \[H,W,3\]"),
        (photo(40, 40) / 255, 2, "uint8"),
        (photo(40, 40), 5, "not x5"),
    ],
)
def test_what_it_cannot_work_on_is_refused(
    small: DipFkpSettings, lr: np.ndarray, scale: int, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        fit(lr, scale, small)


def test_a_picture_that_needs_more_memory_than_there_is_is_refused(small: DipFkpSettings) -> None:
    # Never touched, so the system never gives it memory.
    huge = np.broadcast_to(photo(1, 2**13), (2**13, 2**13, 3))
    with pytest.raises(InputError, match=r"GiB .*--crop"):
        fit(huge, 2, small)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(small: DipFkpSettings) -> None:
    with pytest.raises(InputError, match="'cuda' cannot be used"):
        fit(photo(32, 32), 2, replace(small, device="cuda"))


@pytest.mark.parametrize(
    "change",
    [{"iterations": 0}, {"seed": -1}, {"levels": 0}, {"code_rate": 0.0}, {"alignment": "left"}],
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        DipFkpSettings(**change)  # type: ignore[arg-type]
