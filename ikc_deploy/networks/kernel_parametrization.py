"""Charts: the few numbers that describe a blur, and the kernel code that stands for it.

An estimator that predicts the numbers and lets a chart give the code trains well; one trained on
raw codes does not (curve.py). A chart has `spread_size` numbers within `low` to `high`, `code`
and its inverse `spread`.
"""

from __future__ import annotations

from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.ellipses import EllipseParametrization
from ikc_deploy.networks.sigma_curve import SigmaCurve

KernelParametrization = SigmaCurve | EllipseParametrization


def build_parametrization(settings: Architecture) -> KernelParametrization:
    """The chart of an architecture's family of kernels; `fit_to` a basis comes next."""
    kind = SigmaCurve if settings.kernels == "isotropic" else EllipseParametrization
    return kind(settings.code_size, settings.sigma_range)
