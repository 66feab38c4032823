"""Kernel parametrizations: maps between the few parameters of a blur and its kernel code.

An estimator that predicts the parameters and computes the code from them trains well; one trained
on raw codes does not (sigma_curve.py). A parametrization has `parameter_count` parameters, sigmas
from `low` to `high`, the map `code` and its inverse `kernel_parameters`.
"""

from __future__ import annotations

from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.ellipses import EllipseParametrization
from ikc_deploy.networks.sigma_curve import SigmaCurve

KernelParametrization = SigmaCurve | EllipseParametrization


def build_parametrization(settings: Architecture) -> KernelParametrization:
    """Return the parametrization of the architecture's family of kernels.

    Call `fit_to` with a basis, or load a checkpoint, before use.
    """
    kind = SigmaCurve if settings.kernels == "isotropic" else EllipseParametrization
    return kind(settings.code_size, settings.sigma_range)
