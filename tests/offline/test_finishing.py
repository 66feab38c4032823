from __future__ import annotations

import numpy as np
import pytest
import torch

from ikc_deploy import Bundle, load
from ikc_deploy.errors import KernelError
from ikc_deploy.kernels import (
    KernelBasis,
    gaussian_kernel,
    mean_fkp_kernel,
    shifted_gaussian,
    to_fkp,
)
from ikc_deploy.networks.usrnet import Usrnet, UsrnetSettings
from ikc_deploy.offline.degrading import Alignment
from ikc_deploy.offline.finishing import MOST_LOST, BySftmd, ByUsrnet, projection
from tests.samples import photo


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_kernel_of_the_basis_projects_onto_itself(scale: int) -> None:
    basis = KernelBasis.fit((0.2, float(scale)))
    ours = gaussian_kernel(0.6 * scale)
    projected, lost = projection(to_fkp(ours, scale), scale, basis)
    assert lost < 0.02
    assert np.linalg.norm(projected - ours) < 0.1 * np.linalg.norm(ours)


def test_the_loss_grows_with_what_the_basis_does_not_know() -> None:
    basis = KernelBasis.fit((0.2, 4.0))
    lost = [
        projection(shifted_gaussian(6.0, 6.0 / ratio, 0.7, 4), 4, basis)[1] for ratio in (1, 2, 4)
    ]
    assert lost == sorted(lost)
    assert lost[0] < 0.1 < lost[2]


def test_sftmd_is_given_the_projected_kernel_and_refuses_one_it_does_not_know(
    small_bundle: Bundle,
) -> None:
    lr = photo(12, 14)
    kernel = to_fkp(gaussian_kernel(2.0), 4)
    with load(small_bundle) as upscaler:
        centre = BySftmd(upscaler)(lr, kernel)
        theirs = BySftmd(upscaler, "fkp")(lr, kernel)
        narrow = np.zeros((19, 19))
        narrow[5, 12] = 1.0
        with pytest.raises(KernelError, match=f"{MOST_LOST:.0%} is the limit.*--then usrnet"):
            BySftmd(upscaler)(lr, narrow)
    assert centre.lost is not None and centre.lost < 0.02
    assert centre.image.shape == theirs.image.shape == (48, 56, 3)
    np.testing.assert_array_equal(centre.image[3:, 3:], theirs.image[:-3, :-3])


@pytest.mark.parametrize("alignment", ["centre", "fkp"])
def test_usrnet_upscales_with_its_border_mirrored(alignment: Alignment) -> None:
    torch.manual_seed(0)
    network = Usrnet(UsrnetSettings(iterations=2, channels=(4, 4, 4, 4), blocks=1))
    network.initialize()
    lr = photo(16, 19)
    image = ByUsrnet(network, 2, alignment)(lr, mean_fkp_kernel(2)).image
    assert image.shape == (32, 38, 3)
    # Mirrored, a picture and its mirror image differ in nothing but the kernel's place.
    assert np.abs(image.astype(int).mean() - lr.mean()) < 8
