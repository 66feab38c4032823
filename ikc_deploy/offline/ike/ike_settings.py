"""What can be chosen about a fit: the paper's values, and a switch for each row of its ablation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal, get_args

from ikc_deploy.errors import InputError

CouplingForm = Literal["affine", "additive"]

SCALES: Final = (2, 4)
"""Each stage of the network halves the sides."""

MIN_CROP: Final = 16
"""For each unit of scale: the shrunken crop must be larger than a discriminator's view."""


@dataclass(frozen=True)
class IkeSettings:
    """The fit of one picture. Raises `InputError` for values that are impossible."""

    seed: int = 0
    """Of the networks' first weights and of the crops."""
    iterations: int = 3000
    device: str = "cpu"
    """ "cpu" or "cuda". Only on the CPU are two runs with one seed equal to the last bit."""
    coupling: CouplingForm = "affine"
    """Whether a coupling also scales the middle channels; "additive" has a quarter fewer
    weights."""
    energy: bool = True
    """Keep the blurred brightness of the shrunken and of the upscaled image (L_energy)."""
    tri_channel: bool = True
    """Split channels in three for a coupling instead of two: small image, middle, residual."""
    bicubic_residual: bool = True
    """Let the network see what bicubic shrinking loses, beside the bicubic small image; else the
    four pixels of each 2x2 square as they are."""
    csr_backward: bool = True
    """The upscaled image must look like the LR image, patch for patch (L_CSR_bwd)."""
    interpolation: bool = True
    """The upscaled image stays near the bicubic one away from edges (L_inter)."""
    crop: int = 64
    """Side of the crops of the LR image; less where the image is smaller. The paper's 128 costs
    four times as much an iteration, and a discriminator's view is 7 pixels wide either way."""
    batch: int = 1
    """Crops in an iteration."""
    growth: int = 32
    """Channels that each convolution of a dense block adds."""
    blocks: int = 4
    """Couplings in a stage."""
    width: int = 64
    """Channels of the upsampler and of the discriminators."""

    def __post_init__(self) -> None:
        if self.coupling not in get_args(CouplingForm):
            names = " or ".join(get_args(CouplingForm))
            raise InputError(f"an IKE coupling is {names}, not '{self.coupling}'")
        for name in ("iterations", "batch", "growth", "blocks", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"the seed must be 0 or more, got {self.seed}")
        if self.crop < MIN_CROP * min(SCALES):
            least = MIN_CROP * min(SCALES)
            raise InputError(f"crop must be {least} pixels or more, got {self.crop}")

    @property
    def identity(self) -> dict[str, int | str | bool]:
        """All that decides the result, as JSON values: every field but the device."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "device"}
