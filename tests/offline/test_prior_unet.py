from __future__ import annotations

import pytest
import torch

from ikc_deploy.offline.prior_unet import NOISE_CHANNELS, DeepImagePrior, smallest_side


@pytest.mark.parametrize("height,width", [(17, 17), (40, 33), (32, 50)])
def test_any_size_from_the_smallest_comes_out_as_it_went_in(height: int, width: int) -> None:
    torch.manual_seed(0)
    network = DeepImagePrior(channels=6, levels=4, skip=2)
    assert smallest_side(4) == 17
    picture = network(torch.rand(1, NOISE_CHANNELS, height, width))
    picture.mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    picture = picture.detach()
    assert picture.shape == (1, 3, height, width)
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1
