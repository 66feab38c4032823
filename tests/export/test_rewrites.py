from __future__ import annotations

import pytest
import torch

from ikc_deploy.export.deployable import deployable
from ikc_deploy.networks.architecture import Architecture, Design
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from tests.samples import DESIGNS

# One pixel wide and high, odd and even: the border is where a rewrite would go wrong.
SIZES = ((1, 1), (1, 5), (2, 1), (3, 3), (9, 7), (8, 10))


@pytest.fixture(params=[(design, scale) for design in DESIGNS for scale in (2, 3, 4)], ids=str)
def networks(request: pytest.FixtureRequest) -> IkcNetworks:
    design: Design
    design, scale = request.param
    # 12 channels: half of it is no multiple of the padding, so the zero channels are covered.
    made = new_networks(Architecture("rewritten", scale, design, 12, 2, 8, (0.2, 4.0)), seed=1)
    for module in made.modules().values():
        module.double().eval().requires_grad_(False)
        for parameter in module.parameters():
            # Biases start at zero, which would hide one that is lost.
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rewritten_networks_equal_the_plain_ones(
    networks: IkcNetworks, size: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    sigmas = torch.tensor([0.9, 2.3], dtype=torch.float64)
    code = torch.from_numpy(networks.basis.code_of_sigma(sigmas.numpy())).double()
    image = networks.sftmd.unclamped(lr, code)
    assert image.std() > 1e-3
    rewritten = deployable(networks)
    torch.testing.assert_close(rewritten["sftmd"](lr, code), image, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        rewritten["predictor"](lr), networks.predictor(lr), rtol=0, atol=1e-10
    )
    sr = image.clamp(0, 1)
    torch.testing.assert_close(
        rewritten["corrector"](sr, code), networks.corrector(sr, code), rtol=0, atol=1e-10
    )
