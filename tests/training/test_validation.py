from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ikc_deploy.imaging import degrade
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.resize import quantize
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.training.validation import load_cases, recommended_iters, validate
from tests.samples import photo, small_architecture

SIGMAS = (1.8, 2.6)


@pytest.fixture
def networks() -> IkcNetworks:
    networks = new_networks(small_architecture("compact"), seed=0).freeze()
    # Without its last layer, F is bicubic upscaling, whose figures are known.
    networks.sftmd.conv_output.weight.zero_()
    return networks


def test_the_figures_are_those_of_the_protocol(networks: IkcNetworks, tmp_path: Path) -> None:
    expected, sigma_errors = [], []
    for number in range(2):
        hr = photo(50, 45, number)
        write_rgb(hr, tmp_path / f"{number}.png")
        hr = degrade.crop_to_multiple(hr, 4)
        for sigma in SIGMAS:
            lr = degrade.degrade_gaussian(hr, sigma, 4)
            tensor = torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255
            code = torch.from_numpy(networks.basis.code_of_sigma([sigma]))
            sr = networks.sftmd(tensor, code)[0].permute(1, 2, 0).numpy()
            expected.append(psnr_y(quantize(sr * 255), hr, border=4))
            found = networks.basis.sigma_of_code(networks.predictor(tensor))
            sigma_errors.append(abs(float(found[0]) - sigma))
    cases = load_cases(tmp_path, SIGMAS, 4)
    cpu = torch.device("cpu")
    measured = validate(networks, cases, "sftmd", 2, cpu)
    assert measured.keys() == {"true_kernel", "step0", "sigma_mae0"}
    assert measured["true_kernel"] == pytest.approx(np.mean(expected), abs=1e-6)
    measured = validate(networks, cases, "predictor", 2, cpu)
    assert measured.keys() == {"sigma_mae0"}
    assert measured["sigma_mae0"] == pytest.approx(np.mean(sigma_errors), abs=1e-6)
    measured = validate(networks, cases, "corrector", 2, cpu)
    assert measured.keys() == {f"{k}{step}" for k in ("step", "sigma_mae") for step in range(3)}
    joint = validate(networks, cases, "joint", 2, cpu)
    assert joint == measured | {"true_kernel": pytest.approx(np.mean(expected), abs=1e-6)}
    assert measured["step2"] == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("curve", "iters"),
    [
        ([30.0], 0),
        ([30.0, 30.015, 30.019], 0),
        ([30.0, 30.1, 30.3, 30.31], 2),
        ([30.0, 29.5, 29.0], 0),
    ],
)
def test_corrections_that_gain_nothing_are_not_recommended(curve: list[float], iters: int) -> None:
    assert recommended_iters(curve) == iters
