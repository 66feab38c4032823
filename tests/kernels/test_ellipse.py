from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy.errors import KernelError
from ikc_deploy.kernels import KernelBasis, anisotropic_kernel, ellipse_of_kernel


@given(long=st.floats(2, 4), ratio=st.floats(0.3, 0.9), theta=st.floats(0, np.pi))
def test_axes_and_angle_are_those_of_the_gaussian(long: float, ratio: float, theta: float) -> None:
    found = ellipse_of_kernel(anisotropic_kernel(long, ratio * long, theta, 65))
    assert found.long == pytest.approx(long, abs=0.03)
    assert found.short == pytest.approx(ratio * long, abs=0.03)
    # theta turns from x towards y, which points down; the angle is counterclockwise.
    off = (found.angle + np.degrees(theta)) % 180
    assert 0 <= found.angle < 180 and min(off, 180 - off) < 1


def test_a_kernel_without_shape_is_refused() -> None:
    for wrong in (np.ones((3, 5)), np.zeros((3, 3)), np.full((3, 3), np.nan)):
        with pytest.raises(KernelError):
            ellipse_of_kernel(wrong)


def test_only_bases_of_ellipses_hold_a_direction() -> None:
    assert not KernelBasis.fit((0.2, 4.0)).elliptic
    assert not KernelBasis.fit((0.2, 4.0)).with_levels(2).elliptic
    assert KernelBasis.fit((0.6, 4.0), 16, family="anisotropic").elliptic
