from __future__ import annotations

import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.resize import upscale_bicubic
from ikc_deploy.offline import ike
from ikc_deploy.offline.ike import IkeFit, IkeSettings
from ikc_deploy.offline.optimize import FitResult, Losses, optimize
from tests.samples import photo


def fit(
    lr: NDArray[np.uint8], scale: int, settings: IkeSettings, *rest: Any, **more: Any
) -> FitResult:
    return optimize(IkeFit(lr, scale, settings), *rest, **more)


SMALL = IkeSettings(seed=3, iterations=6, crop=64, growth=2, blocks=1, width=4)
SWITCHES = ("energy", "tri_channel", "bicubic_residual", "csr_backward", "interpolation")
LR = photo(40, 44)


# Scales and couplings are spread over the rows; the first and the last have both of each.
@pytest.mark.parametrize(
    ("on", "scale", "coupling"),
    [
        (0, 2, "affine"),
        (0, 4, "additive"),
        (1, 4, "affine"),
        (2, 2, "additive"),
        (3, 4, "additive"),
        (4, 2, "affine"),
        (5, 2, "additive"),
        (5, 4, "affine"),
    ],
)
def test_every_row_of_the_ablation_runs(on: int, scale: int, coupling: Any) -> None:
    switches: dict[str, Any] = {name: index < on for index, name in enumerate(SWITCHES)}
    settings = replace(SMALL, iterations=2, coupling=coupling, **switches)
    lr = photo(64 + 1, 64 + 2)
    result = fit(lr, scale, settings)
    assert result.complete and result.kernel is None
    assert result.image.shape == (65 * scale, 66 * scale, 3) and result.image.dtype == np.uint8
    assert len(result.history) == 2
    named = set(result.history[0])
    assert {"loss", "patches", "bicubic", "variation", "discriminator_lr"} <= named
    assert ("energy" in named) == settings.energy
    assert ("patches_large" in named) == ("discriminator_hr" in named) == settings.csr_backward
    assert ("interpolation" in named) == settings.interpolation


def test_an_untrained_full_model_is_bicubic_that_shrinks_back_to_the_lr() -> None:
    untrained = IkeFit(LR, 2, SMALL).image()
    assert psnr_y(untrained, upscale_bicubic(LR, 2), 2) > 30
    # Bicubic downscaling gives the LR image again, but for rounding and clipping.
    downscaled, _ = ike.IkeFit(untrained, 2, SMALL)._networks.downscale(_planes(untrained))
    assert (255 * downscaled[0] - _planes(LR)[0] * 255).abs().median() < 0.5


def _planes(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def test_training_changes_the_picture_and_lowers_what_it_lowers() -> None:
    settings = replace(SMALL, iterations=40, csr_backward=False, crop=32)
    before = IkeFit(LR, 2, settings).image()
    result = fit(LR, 2, settings)
    assert np.any(result.image != before)
    first, last = (
        np.mean([each["variation"] for each in part])
        for part in (result.history[:10], result.history[-10:])
    )
    assert last < first


def test_a_fit_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    one = fit(LR, 2, SMALL)
    torch.manual_seed(2)
    mark = torch.random.get_rng_state()
    again = fit(LR, 2, SMALL)
    assert torch.equal(torch.random.get_rng_state(), mark)
    assert one.history == again.history
    np.testing.assert_array_equal(one.image, again.image)
    assert fit(LR, 2, replace(SMALL, seed=4)).history != one.history


@pytest.mark.parametrize("broken_after", [1, 4])
def test_an_interrupted_fit_goes_on_to_the_same_end(tmp_path: Path, broken_after: int) -> None:
    unbroken = fit(LR, 2, SMALL)
    stop, file = threading.Event(), tmp_path / "fit.pt"

    def watch(done: int, total: int, _: Losses) -> None:
        assert total == 6
        if done == broken_after:
            stop.set()

    stopped = fit(LR, 2, SMALL, watch, stop=stop, state=file)
    assert not stopped.complete and len(stopped.history) == broken_after
    finished = fit(LR, 2, SMALL, state=file)
    assert finished.complete
    assert finished.history == unbroken.history
    np.testing.assert_array_equal(finished.image, unbroken.image)


def test_a_state_is_gone_on_with_for_the_same_image_and_settings_only(tmp_path: Path) -> None:
    fit(LR, 2, replace(SMALL, iterations=1), state=tmp_path / "fit.pt")
    changes: dict[str, Any] = {"seed": 9, "coupling": "additive", "growth": 3, "energy": False}
    for lr, settings in (
        (LR[::-1].copy(), SMALL),
        *((LR, replace(SMALL, **{name: value})) for name, value in changes.items()),
    ):
        with pytest.raises(InputError, match="another image or with other settings"):
            fit(lr, 2, replace(settings, iterations=1), state=tmp_path / "fit.pt")


def test_a_grey_picture_is_fitted_as_one_colour_and_stays_grey() -> None:
    grey = np.repeat(LR[:, :, 1:2], 3, axis=2)
    image = fit(grey, 2, SMALL).image
    assert image.shape == (80, 88, 3)
    assert (image == image[:, :, :1]).all() and image.std() > 10


@pytest.mark.parametrize(
    ("lr", "scale", "words"),
    [
        (photo(31, 80), 2, "80x31 pixels.*needs at least 32"),
        (photo(63, 80), 4, "80x63 pixels.*needs at least 64"),
        (photo(64, 64), 3, "not x3"),
        (photo(64, 64)[:, :, 0], 2, r"takes RGB \[H,W,3\] uint8"),
        (photo(64, 64) / 255, 2, r"takes RGB \[H,W,3\] uint8"),
        (np.full((64, 64, 3), 9, np.uint8), 2, "flat"),
        (np.broadcast_to(photo(1, 200), (10**5, 200, 3)), 4, "GiB"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_done(
    lr: Any, scale: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ikc_deploy.offline.ike.ike_fit.InvertibleNetwork", None)
    with pytest.raises(InputError, match=words):
        IkeFit(lr, scale, IkeSettings())


def test_a_fit_that_needs_more_memory_than_there_is_is_refused() -> None:
    with pytest.raises(InputError, match="GiB"):
        IkeFit(photo(64, 64), 4, IkeSettings(batch=100_000))


def test_crops_that_are_too_small_for_x4_are_refused() -> None:
    with pytest.raises(InputError, match="crop must be 64 pixels or more at x4"):
        IkeFit(photo(80, 80), 4, replace(SMALL, crop=32))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("coupling", "linear", "one of affine, additive, got 'linear'"),
        ("iterations", 0, "iterations must be a whole number of at least 1"),
        ("growth", 0, "growth must be 1 or more"),
        ("crop", 16, "crop must be 32 pixels or more"),
        ("seed", -1, "seed must be a whole number of at least 0"),
    ],
)
def test_impossible_settings_are_refused(name: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(SMALL, **{name: value})


def test_the_fingerprint_holds_every_setting_but_the_device() -> None:
    kept = IkeFit(LR, 2, SMALL).fingerprint
    assert {f.name for f in fields(IkeSettings)} - {"device"} <= set(kept)
    assert (kept["method"], kept["scale"]) == ("ike", 2)
