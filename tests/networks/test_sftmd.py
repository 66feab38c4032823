from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ikc_deploy.imaging.resize import resize_bicubic
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import new_networks, random_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.sftmd import BicubicPhases, CodeBorder, conditioned_conv
from ikc_deploy.networks.sr_network import build_sr_network
from tests.samples import DESIGNS, photo, small_architecture


@given(
    design=st.sampled_from(DESIGNS),
    scale=st.sampled_from([2, 3, 4]),
    count=st.integers(1, 3),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
)
def test_output_is_an_image_scale_times_as_large(
    design: Design, scale: int, count: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    settings = small_architecture(design, scale)
    network = build_sr_network(settings).requires_grad_(False)
    # Loud weights, so that only the clamp keeps the range.
    network.conv_output.weight.mul_(1000)
    sr = network(torch.rand(count, 3, height, width), torch.randn(count, settings.code_size))
    assert sr.shape == (count, 3, scale * height, scale * width)
    assert sr.min() >= 0 and sr.max() <= 1


@pytest.mark.parametrize("border", ["zero", "replicate"])
def test_code_border_decides_how_the_code_map_goes_on_outside(border: CodeBorder) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4 + 3, 5, 3, padding=1).double()
    features = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    code = torch.randn(2, 3, dtype=torch.float64)
    outside = 0.0 if border == "zero" else code[:, :, None, None].expand(-1, -1, 8, 9)
    code_map = torch.zeros(2, 3, 8, 9, dtype=torch.float64) + outside
    code_map[:, :, 1:-1, 1:-1] = code[:, :, None, None]
    joined = torch.cat((F.pad(features, (1, 1, 1, 1)), code_map), dim=1)
    expected = F.conv2d(joined, conv.weight, conv.bias)
    torch.testing.assert_close(conditioned_conv(features, code, conv, border), expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_phases_are_bicubic_upscaling(scale: int) -> None:
    lr = photo(11, 14) / 255
    phases = BicubicPhases(scale)(torch.from_numpy(lr).permute(2, 0, 1)[None])
    upscaled = F.pixel_shuffle(phases, scale)[0].permute(1, 2, 0).numpy()
    # The borders differ on purpose: replicated here, symmetric there.
    inside = (slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
    np.testing.assert_allclose(upscaled[inside], resize_bicubic(lr, scale)[inside], atol=1e-6)
    assert np.abs(upscaled - resize_bicubic(lr, scale)).max() < 0.1


@pytest.mark.parametrize("name", ["x2-lite", "x4-lite"])
def test_the_untrained_compact_network_is_close_to_bicubic(name: str) -> None:
    networks = random_networks(name)
    assert isinstance(networks, IkcNetworks)
    lr = photo(24, 24) / 255
    code = torch.from_numpy(networks.basis.code_of_sigma([1.5]))
    sr = networks.sftmd(torch.from_numpy(lr).permute(2, 0, 1)[None].float(), code)
    difference = sr[0].permute(1, 2, 0).numpy() - resize_bicubic(lr, networks.architecture.scale)
    assert np.sqrt(np.mean(difference**2)) < 10 / 255


@pytest.mark.parametrize("design", DESIGNS)
def test_no_parameter_is_idle(design: Design) -> None:
    networks = new_networks(small_architecture(design), seed=0)
    code = torch.from_numpy(networks.basis.code_of_sigma([1.0, 2.0]))
    sr = networks.sftmd.unclamped(torch.rand(2, 3, 6, 6), code)
    sr.square().sum().backward()  # type: ignore[no-untyped-call]
    idle = [
        name
        for name, weight in networks.sftmd.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert idle == []
