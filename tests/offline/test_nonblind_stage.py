from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat

from ikc_deploy import Bundle, load
from ikc_deploy.errors import KernelError
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.kernels import (
    KernelBasis,
    gaussian_kernel,
    mean_fkp_kernel,
    shifted_gaussian,
    to_fkp,
)
from ikc_deploy.kernels.conventions import degrade_fkp
from ikc_deploy.kernels.kernel_checks import MAX_LOST
from ikc_deploy.networks.reference_usrnet import import_usrnet
from ikc_deploy.networks.usrnet import Usrnet, UsrnetSettings
from ikc_deploy.offline.fit_settings import Alignment
from ikc_deploy.offline.nonblind_stage import SftmdNonBlind, UsrnetNonBlind, projection
from ikc_deploy.runtime.nonblind import NonBlind
from tests.bundles import near_bicubic_usrnet
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
        centre = SftmdNonBlind(upscaler)(lr, kernel)
        theirs = SftmdNonBlind(upscaler, "fkp")(lr, kernel)
        narrow = np.zeros((19, 19))
        narrow[5, 12] = 1.0
        with pytest.raises(KernelError, match=f"limit is {MAX_LOST:.0%}.*--then usrnet"):
            SftmdNonBlind(upscaler)(lr, narrow)
    assert centre.lost is not None and centre.lost < 0.02
    assert centre.image.shape == theirs.image.shape == (48, 56, 3)
    np.testing.assert_array_equal(centre.image[3:, 3:], theirs.image[:-3, :-3])


@pytest.mark.parametrize("alignment", ["centre", "fkp"])
def test_usrnet_upscales_up_to_the_border(alignment: Alignment) -> None:
    torch.manual_seed(0)
    network = Usrnet(UsrnetSettings(iterations=2, channels=(4, 4, 4, 4), blocks=1))
    network.initialize()
    lr = photo(16, 19)
    image = UsrnetNonBlind(network, 2, alignment)(lr, mean_fkp_kernel(2)).image
    assert image.shape == (32, 38, 3)
    assert np.abs(image.astype(int).mean() - lr.mean()) < 8


def test_usrnet_makes_its_margin_as_the_graph_of_a_bundle_does(usrnet_bundle: Bundle) -> None:
    """Beyond a photograph's edges a diagonal blur is no mirror image."""
    kernel = shifted_gaussian(9.0, 1.0, 0.8, 4)
    large = photo(4 * 56, 4 * 52, seed=5)
    lr = np.rint(degrade_fkp(large, kernel, 4)).clip(0, 255).astype(np.uint8)[8:-8, 8:-8]
    ours = UsrnetNonBlind(near_bicubic_usrnet(), 4, "fkp")(lr, kernel).image
    with NonBlind(usrnet_bundle) as nonblind:
        theirs = nonblind(lr, kernel)
    # Their margins differ in width, so that a few pixels at the edges do.
    differences = np.abs(ours.astype(int) - theirs)
    assert differences.max() <= 8 and differences.mean() < 0.5


def test_published_weights_and_kernel_give_the_published_figure(shared: Path) -> None:
    material = shared / "official_fkp"
    hr = read_rgb(material / "test_image" / "HR" / "102061.png")[:480, :320]
    lr = read_rgb(material / "test_image" / "DIPFKP_lr_x4" / "102061.png")
    kernel = loadmat(material / "test_image" / "DIPFKP_gt_k_x4" / "102061.mat")["Kernel"]
    network = import_usrnet(material / "usrnet_tiny.pth")
    image = UsrnetNonBlind(network, 4, "fkp")(lr, kernel).image
    # 26.11 where the border wraps around, as it did when the image was made.
    assert psnr_y(image, hr, 4) == pytest.approx(26.11, abs=0.05)
