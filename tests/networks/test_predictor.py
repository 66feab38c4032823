from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import SinglePredictor
from tests.samples import DESIGNS, small_architecture


@cache
def untrained(design: Design) -> IkcNetworks:
    return new_networks(small_architecture(design), seed=1).freeze()


@given(
    design=st.sampled_from(DESIGNS),
    count=st.integers(1, 3),
    height=st.integers(1, 15),
    width=st.integers(1, 15),
)
def test_every_image_gets_one_code_of_its_own(
    design: Design, count: int, height: int, width: int
) -> None:
    networks = untrained(design)
    lr = torch.rand(count, 3, height, width)
    codes = networks.predictor(lr)
    assert codes.shape == (count, networks.basis.code_size)
    torch.testing.assert_close(codes[-1:], networks.predictor(lr[-1:]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bias", [-9.0, -0.5, 0.0, 0.8, 9.0])
def test_the_compact_code_is_that_of_the_predicted_sigma(bias: float) -> None:
    networks = new_networks(small_architecture("compact"), seed=1).freeze()
    predictor = networks.predictor
    assert isinstance(predictor, SinglePredictor)
    last = predictor.head[-1]
    assert isinstance(last, nn.Linear)
    last.bias.fill_(bias)
    lr = torch.rand(2, 3, 12, 12)
    sigma = predictor.estimates(lr)[0][:, 0].numpy().astype(np.float64).clip(0.2, 4.0)
    np.testing.assert_allclose(predictor(lr), networks.basis.code_of_sigma(sigma), atol=1e-3)


@pytest.mark.parametrize("design", DESIGNS)
def test_every_layer_learns(design: Design) -> None:
    predictor = new_networks(small_architecture(design), seed=1).predictor
    predictor(torch.rand(4, 3, 16, 16)).square().sum().backward()
    idle = [
        name
        for name, weight in predictor.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert idle == []
