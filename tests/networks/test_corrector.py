from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ikc_deploy.kernels import anisotropic_kernel
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.corrector import ReferenceCorrector, StatisticsCorrector
from ikc_deploy.networks.loop_networks import IkcNetworks
from tests.samples import DESIGNS, small_architecture


def networks_of(design: Design) -> IkcNetworks:
    return new_networks(small_architecture(design), seed=2).freeze()


def codes_of(networks: IkcNetworks, *sigmas: float) -> torch.Tensor:
    return torch.from_numpy(networks.basis.code_of_sigma(sigmas))


untrained = cache(networks_of)
"""For tests that change nothing."""


@given(
    design=st.sampled_from(DESIGNS),
    count=st.integers(1, 3),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
)
def test_every_image_gets_its_next_code(
    design: Design, count: int, height: int, width: int
) -> None:
    networks = untrained(design)
    sr = torch.rand(count, 3, height, width)
    codes = codes_of(networks, *np.linspace(1.0, 3.0, count).tolist())
    corrected = networks.corrector(sr, codes)
    assert corrected.shape == codes.shape
    alone = networks.corrector(sr[-1:], codes[-1:])
    torch.testing.assert_close(corrected[-1:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [*DESIGNS, "anisotropic"])
def test_a_correction_of_nothing_keeps_the_code_however_often(kind: str) -> None:
    if kind == "anisotropic":
        settings = replace(small_architecture("compact"), kernels="anisotropic", code_size=16)
        networks = new_networks(settings, seed=2).freeze()
        code = torch.from_numpy(networks.basis.encode(anisotropic_kernel(1.2, 3.4, [0.3, 2.0])))
    else:
        networks = networks_of("reference" if kind == "reference" else "compact")
        code = codes_of(networks, 0.6, 3.2)
    corrector = networks.corrector
    last: nn.Module
    if isinstance(corrector, ReferenceCorrector):
        last = corrector.global_dense[-1]
    else:
        last = corrector.last_layer
    for parameter in last.parameters():
        parameter.detach().zero_()
    corrected = code
    for _ in range(7):
        corrected = corrector(torch.rand(2, 3, 16, 16), corrected)
    torch.testing.assert_close(corrected, code, atol=1e-5, rtol=0)


@pytest.mark.parametrize("push", [-8.0, -0.4, 0.4, 8.0])
def test_the_compact_corrector_moves_sigma_by_its_step_within_the_range(push: float) -> None:
    networks = networks_of("compact")
    corrector = networks.corrector
    assert isinstance(corrector, StatisticsCorrector)
    last = corrector.head[-1]
    assert isinstance(last, nn.Linear)
    last.bias.fill_(push)
    sr, code = torch.rand(2, 3, 16, 16), codes_of(networks, 1.5, 2.5)
    expected = (np.array([1.5, 2.5]) + corrector.step(sr, code)[:, 0].numpy()).clip(0.2, 4.0)
    reached = networks.basis.sigma_of_code(corrector(sr, code))
    np.testing.assert_allclose(reached, expected, atol=5e-3)


@pytest.mark.parametrize("design", DESIGNS)
def test_every_layer_learns(design: Design) -> None:
    networks = new_networks(small_architecture(design), seed=2)
    code = codes_of(networks, 1.0, 1.5, 2.0, 3.0)
    networks.corrector(torch.rand(4, 3, 16, 16), code).square().sum().backward()
    idle = [
        name
        for name, weight in networks.corrector.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert idle == []
