"""Blur kernels: Gaussians, kernel codes, and the two conventions for applying a kernel.

`gaussians` computes centred kernels from sigma, `basis` their kernel codes, `ellipse` the axes and
the angle of a kernel; `conventions` implements the FKP convention, its family of kernels, and the
conversion to and from our convention. This package imports only numpy, because embedders and
servers import it.
"""

from ikc_deploy.kernels.basis import CODE_SIZE, LEVEL_UNITS, LEVELS, KernelBasis
from ikc_deploy.kernels.conventions import (
    FKP_SCALES,
    degrade_fkp,
    fkp_size,
    fkp_variances,
    lag,
    mean_fkp_kernel,
    random_fkp_kernels,
    shifted_gaussian,
    to_fkp,
    to_ours,
)
from ikc_deploy.kernels.ellipse import Ellipse, ellipse_of_kernel
from ikc_deploy.kernels.gaussians import (
    KERNEL_SIZE,
    SIGMA_RANGES,
    Family,
    anisotropic_kernel,
    family_kernels,
    gaussian_kernel,
)
from ikc_deploy.kernels.principal_components import explained_variance

__all__ = [
    "CODE_SIZE",
    "FKP_SCALES",
    "KERNEL_SIZE",
    "LEVELS",
    "LEVEL_UNITS",
    "SIGMA_RANGES",
    "Ellipse",
    "Family",
    "KernelBasis",
    "anisotropic_kernel",
    "degrade_fkp",
    "ellipse_of_kernel",
    "explained_variance",
    "family_kernels",
    "fkp_size",
    "fkp_variances",
    "gaussian_kernel",
    "lag",
    "mean_fkp_kernel",
    "random_fkp_kernels",
    "shifted_gaussian",
    "to_fkp",
    "to_ours",
]
