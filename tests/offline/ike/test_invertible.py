from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.imaging.resize import resize_bicubic
from ikc_deploy.offline.ike.auxiliary_networks import Discriminator, Upsampler
from ikc_deploy.offline.ike.ike_settings import IkeSettings
from ikc_deploy.offline.ike.invertible import Coupling, InvertibleNetwork
from ikc_deploy.offline.ike.splits import BicubicSplit
from ikc_deploy.offline.ike_switches import CouplingForm
from tests.samples import photo

FORMS: tuple[CouplingForm, ...] = ("affine", "additive")


def parameters(*modules: nn.Module) -> int:
    return sum(weight.numel() for module in modules for weight in module.parameters())


def planes(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1)[:, None] / 255)


def trained(scale: int, settings: IkeSettings, seed: int) -> InvertibleNetwork:
    """A network whose last convolutions are no longer zero, in float32."""
    torch.manual_seed(seed)
    network = InvertibleNetwork(scale, settings)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.03 * torch.randn_like(weight))
    return network


@given(
    scale=st.sampled_from((2, 4)),
    rows=st.integers(2, 12),
    columns=st.integers(2, 12),
    form=st.sampled_from(FORMS),
    tri_channel=st.booleans(),
    bicubic_residual=st.booleans(),
    seed=st.integers(0, 99),
)
def test_backward_undoes_forward_in_float32(
    scale: int,
    rows: int,
    columns: int,
    form: CouplingForm,
    tri_channel: bool,
    bicubic_residual: bool,
    seed: int,
) -> None:
    settings = IkeSettings(
        coupling=form, tri_channel=tri_channel, bicubic_residual=bicubic_residual, growth=4
    )
    network = trained(scale, settings, seed)
    image = planes(photo(scale * rows, scale * columns, seed)).float()
    with torch.no_grad():
        small, rest = network(image)
        again = network.inverse(small, rest)
        # And the other way round: any small image with any rest.
        given_small, given_rest = torch.rand_like(small), 0.2 * torch.randn_like(rest)
        made = network.inverse(given_small, given_rest)
        turned = network(made)
    assert small.shape == (3, 1, rows, columns)
    assert rest.shape == (3, scale**2 - 1, rows, columns)
    assert_same(again, image, between=rest)
    assert_same(turned[0], given_small, between=made)
    assert_same(turned[1], given_rest, between=made)


def assert_same(found: Tensor, expected: Tensor, between: Tensor) -> None:
    """Equal to 1e-5; where values in between are larger than 1, of the largest of them."""
    largest = max(1.0, float(between.abs().max()))
    assert (found - expected).abs().max() < 1e-5 * largest


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("tri_channel", [True, False])
def test_the_network_does_more_than_its_splits(scale: int, tri_channel: bool) -> None:
    settings = IkeSettings(tri_channel=tri_channel, growth=4)
    image = planes(photo(24, 32)).float()
    with torch.no_grad():
        plain, _ = InvertibleNetwork(scale, settings)(image)
        changed, _ = trained(scale, settings, seed=1)(image)
    assert (plain - changed).abs().mean() > 0.01


@pytest.mark.parametrize("scale", [2, 4])
def test_untrained_it_shrinks_bicubically(scale: int) -> None:
    image = photo(32, 48)
    network = InvertibleNetwork(scale, IkeSettings()).double()
    with torch.no_grad():
        small, _ = network(planes(image))
    expected = image.astype(np.float64)
    for _ in range(scale // 2):
        expected = resize_bicubic(expected, 0.5)
    np.testing.assert_allclose(255 * small[:, 0].permute(1, 2, 0), expected, atol=1e-9)


@pytest.mark.parametrize("scale", [2, 4])
def test_without_the_bicubic_residual_it_begins_as_every_other_pixel(scale: int) -> None:
    image = planes(photo(32, 48))
    network = InvertibleNetwork(scale, IkeSettings(bicubic_residual=False)).double()
    with torch.no_grad():
        small, rest = network(image)
    assert torch.equal(small, image[..., ::scale, ::scale])
    assert rest.numel() + small.numel() == image.numel()


def test_the_details_are_those_of_what_bicubic_shrinking_loses() -> None:
    image = photo(20, 26)
    half = resize_bicubic(image, 0.5)
    lost = (image - resize_bicubic(half, 2)).transpose(2, 0, 1) / 255
    top, bottom = lost[:, ::2], lost[:, 1::2]
    across = (top + bottom)[..., ::2] - (top + bottom)[..., 1::2]
    parts = BicubicSplit().forward(planes(image))
    np.testing.assert_allclose(parts[:, 1], across / 2, atol=1e-12)
    np.testing.assert_allclose(BicubicSplit().inverse(parts), planes(image), atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_the_residual_channel_passes_a_coupling_untouched(form: CouplingForm) -> None:
    torch.manual_seed(0)
    coupling = Coupling(4, IkeSettings(coupling=form, growth=4))
    parts = torch.rand(2, 4, 8, 8)
    with torch.no_grad():
        for weight in coupling.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        changed = coupling(parts)
    assert torch.equal(changed[:, 3], parts[:, 3])
    assert (changed[:, :3] - parts[:, :3]).abs().amin(dim=(0, 2, 3)).sum() > 0


def test_the_papers_sizes() -> None:
    """Millions of weights: G 0.94 and 2.04, U 0.23 and 0.27."""
    for scale, network, upsampler in ((2, 0.94, 0.23), (4, 2.04, 0.27)):
        assert round(parameters(InvertibleNetwork(scale, IkeSettings())) / 1e6, 2) == network
        rest = 3 * (scale**2 - 1)
        assert round(parameters(Upsampler(rest, scale, 64)) / 1e6, 2) == upsampler


def test_a_discriminator_sees_seven_pixels() -> None:
    torch.manual_seed(0)
    judge = Discriminator(3, 16).eval()
    image = torch.rand(1, 3, 20, 24)
    changed = image.clone()
    changed[..., 9, 11] += 1
    with torch.no_grad():
        difference = (judge(changed) - judge(image))[0, 0]
    assert difference.shape == (14, 18)
    rows, columns = difference.nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 9, 5, 11)
