"""The weights inside the package do what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ikc_deploy.errors import CheckpointError
from ikc_deploy.imaging.degrade import crop_to_multiple, degrade_gaussian
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.resize import quantize, upscale_bicubic
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.weights_loader import load_ikc_networks, load_weights
from ikc_deploy.weights import DEFAULT_WEIGHTS, shipped_weights

# In the middle of each scale's Gaussian8.
SIGMAS = {2: 1.2, 3: 1.9, 4: 2.5}


def test_the_default_is_shipped() -> None:
    assert DEFAULT_WEIGHTS in shipped_weights()


@pytest.mark.parametrize("name", shipped_weights())
def test_shipped_weights_are_small_and_documented(name: str) -> None:
    path = shipped_weights()[name]
    assert path.stat().st_size < 12e6
    assert path.with_suffix(".log.jsonl").stat().st_size > 0
    card = path.with_suffix(".md").read_text()
    training = load_weights(name).networks.training
    assert training["recipe"] == name
    for stage in training["stages"].values():
        assert f"{stage['steps']:,}" in card


@pytest.mark.parametrize("name", shipped_weights())
@torch.no_grad()
def test_shipped_weights_see_and_undo_the_blur(name: str, repository: Path) -> None:
    networks = load_weights(name).networks
    assert isinstance(networks, IkcNetworks)
    scale = networks.architecture.scale
    sigma = SIGMAS[scale]
    hr = crop_to_multiple(read_rgb(repository / "samples" / "kodim23.png")[100:340, 200:500], scale)
    small = degrade_gaussian(hr, sigma, scale)
    lr = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
    code = networks.predictor(lr)
    for _ in range(2):
        code = networks.corrector(networks.sftmd(lr, code), code)
    image = quantize(networks.sftmd(lr, code)[0].permute(1, 2, 0).numpy() * 255)
    bicubic = upscale_bicubic(small, scale)
    assert abs(float(networks.basis.sigma_of_code(code.numpy())[0]) - sigma) < 0.6
    # Weights that know noise are careful on a clean image.
    better = 1 if networks.training.get("degradation", {}).get("noise") else 2
    assert psnr_y(image, hr, scale) > psnr_y(bicubic, hr, scale) + better


def test_weights_of_another_method_are_no_networks_of_ikc() -> None:
    assert load_ikc_networks(DEFAULT_WEIGHTS).architecture.name == DEFAULT_WEIGHTS
    with pytest.raises(CheckpointError, match="those of IKC are needed"):
        load_ikc_networks("random:x4-dan-lite")
