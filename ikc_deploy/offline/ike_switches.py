"""Switches of IKE, one for each row of the paper's ablation. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ikc_deploy.option_fields import Option

CouplingForm = Literal["affine", "additive"]


@dataclass(frozen=True)
class IkeSwitches:
    """The parts of IKE that the ablation of its paper disables one by one."""

    coupling: Annotated[
        CouplingForm,
        Option(
            "IKE: whether a coupling also scales the middle channels; additive has a quarter fewer "
            "weights."
        ),
    ] = "affine"
    energy: Annotated[
        bool,
        Option(
            "IKE: preserve the blurred brightness in the small and the upscaled image (L_energy)."
        ),
    ] = True
    tri_channel: Annotated[
        bool,
        Option("IKE: split channels in three (small image, middle, residual), not in two."),
    ] = True
    bicubic_residual: Annotated[
        bool,
        Option(
            "IKE: feed the bicubic small image and its residual instead of the four pixels of each "
            "2x2 square."
        ),
    ] = True
    csr_backward: Annotated[
        bool,
        Option("IKE: make patches of the upscaled image resemble those of the input (L_CSR_bwd)."),
    ] = True
    interpolation: Annotated[
        bool,
        Option("IKE: keep the upscaled image near the bicubic one away from edges (L_inter)."),
    ] = True
