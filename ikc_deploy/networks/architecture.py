"""Architectures of the networks of a loop: frozen settings, and the named sizes that are shipped.

The designs `dan1` and `dan2` are the two versions of DAN. The three others are of IKC, and share
every graph contract. `reference` loads the published checkpoints tensor by tensor. The other two
are this project's own, chosen by measurement (docs/training.md): their estimators read sigma from
the mean *and* standard deviation of features, and their F works at LR resolution up to the last
convolution. `compact` is SFTMD with a code map that is padded by replication, so the code enters as
a plain bias; `film` is a plain residual trunk with a scale and a shift per channel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ikc_deploy.errors import CheckpointError
from ikc_deploy.kernels import CODE_SIZE, KERNEL_SIZE, LEVELS, SIGMA_RANGES, Family
from ikc_deploy.loops import DAN, IKC, Loop
from ikc_deploy.text import shown
from ikc_deploy.typed_values import SettingError, read_settings

Design = Literal["reference", "compact", "film", "dan1", "dan2"]

DAN_DESIGNS: Final = ("dan1", "dan2")
"""Designs of DAN, whose networks are a Restorer and an Estimator."""

SIGMA_LIMITS: Final = (0.05, float(KERNEL_SIZE))
"""Smallest and largest sigma in HR pixels: between a kernel of one pixel and a flat one."""

MIN_SPAN: Final = 0.1
"""Smallest width of a sigma range in HR pixels; float32 cannot distinguish kernels of less."""

_MAX: Final = {
    "channels": 512,
    "blocks": 128,
    "estimator_channels": 512,
    "code_size": KERNEL_SIZE**2,
    "groups": 64,
    "estimator_blocks": 64,
}
"""Upper limits: eight times the published sizes, and one code component for each kernel pixel."""

_MAX_BLOCKS: Final = 512
"""Upper limit of the number of blocks of all groups: eight times the published size or more."""

MAX_EXPERTS: Final = 8
"""Upper limit of the experts of one half."""

_KERNEL_SIDES: Final = (3, 127)
"""Smallest and largest side of the kernels of a basis, in pixels."""


@dataclass(frozen=True)
class Architecture:
    """The settings that determine the shapes of the networks.

    Raises:
        CheckpointError: A setting is out of range, or the settings contradict each other.
    """

    name: str
    """Label for people; it has no influence on the shapes."""
    scale: int
    """Ratio of SR size to LR size: 2, 3 or 4."""
    design: Design
    """Design of the networks: "reference", "compact" or "film" of IKC, "dan1" or "dan2" of DAN."""
    channels: int
    """Number of feature channels of the SR network F; even, 2 to 512."""
    blocks: int
    """Number of residual blocks of F, or of each of its groups, 1 to 128."""
    estimator_channels: int
    """Largest number of feature channels of the networks that estimate the code, 1 to 512; even for
    DAN."""
    sigma_range: tuple[float, float]
    """Smallest and largest sigma of the supported Gaussians on either axis, in HR pixels."""
    code_size: int = CODE_SIZE
    """Number of components of the kernel code, levels included."""
    kernels: Family = "isotropic"
    """Family of the supported Gaussians: "isotropic" or "anisotropic"."""
    levels: int = 0
    """Number of trailing components of the code that describe the noise and the compression of the
    LR image (`ikc_deploy.kernels.LEVELS`) instead of its blur: 0 or 2."""
    experts: int = 0
    """Number of estimators of P for clean images, and as many for degraded ones; 0 for only one
    estimator. Needs levels."""
    groups: int = 1
    """Number of groups of blocks of F; more than 1 for "dan2" only."""
    estimator_blocks: int = 5
    """Number of blocks of DAN's Estimator; unused by the designs of IKC."""
    kernel_size: int = KERNEL_SIZE
    """Side in pixels of the kernels of the basis, odd."""

    def __post_init__(self) -> None:
        """Require a supported scale, sizes in range, and levels that the design has."""
        if self.scale not in SIGMA_RANGES:
            raise CheckpointError(
                f"scale must be one of {sorted(SIGMA_RANGES)}, got {shown(self.scale)}"
            )
        for name, most in _MAX.items():
            if not 1 <= getattr(self, name) <= most:
                raise CheckpointError(
                    f"{name} must lie in 1 to {most}, got {shown(getattr(self, name))}"
                )
        low, high = self.sigma_range
        least, most_sigma = SIGMA_LIMITS
        if not least <= low < high <= most_sigma or high - low < MIN_SPAN - 1e-9:
            raise CheckpointError(
                f"sigma_range needs {least:g} <= low < high <= {most_sigma:g}, at least "
                f"{MIN_SPAN:g} apart, got {list(self.sigma_range)}"
            )
        if self.channels % 2:
            raise CheckpointError(f"channels must be even, got {self.channels}")
        if self.levels not in (0, len(LEVELS)) or isinstance(self.levels, bool):
            raise CheckpointError(f"levels must be 0 or {len(LEVELS)}, got {self.levels!r}")
        if self.levels and self.design in ("reference", *DAN_DESIGNS):
            raise CheckpointError(
                f"networks of the {self.design} design have no levels in their code"
            )
        if not 0 <= self.experts <= MAX_EXPERTS or (self.experts and not self.levels):
            raise CheckpointError(
                f"experts must lie in 0 to {MAX_EXPERTS}, and be 0 without levels, got "
                f"{shown(self.experts)}"
            )
        if self.code_size <= self.levels:
            raise CheckpointError(
                f"code_size {self.code_size} is too small for {self.levels} levels and a kernel; "
                "increase code_size"
            )

        self._check_dan()

    def _check_dan(self) -> None:
        """Require what DAN needs, and nothing of it in other designs."""
        least, most = _KERNEL_SIDES
        if self.kernel_size % 2 == 0 or not least <= self.kernel_size <= most:
            raise CheckpointError(
                f"kernel_size must be odd and lie in {least} to {most}, got {self.kernel_size}"
            )
        if self.groups > 1 and self.design != "dan2":
            raise CheckpointError(
                f"networks of the {self.design} design have no groups, got groups = {self.groups}"
            )
        if self.groups * self.blocks > _MAX_BLOCKS:
            raise CheckpointError(
                f"{self.groups} groups of {self.blocks} blocks are more than {_MAX_BLOCKS} blocks"
            )
        if self.design in DAN_DESIGNS and self.estimator_channels % 2:
            raise CheckpointError(f"estimator_channels must be even, got {self.estimator_channels}")

    @property
    def loop(self) -> Loop:
        """Loop in which the networks run."""
        return DAN if self.design in DAN_DESIGNS else IKC

    @property
    def kernel_components(self) -> int:
        """Number of components of the code that describe the blur kernel."""
        return self.code_size - self.levels

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Architecture:
        """Return the architecture of settings that were read from a file; the inverse of `to_dict`.

        Args:
            values: A mapping from setting names to plain values.

        Raises:
            CheckpointError: A name is missing or unknown, or a value has the wrong type or range.
        """
        try:
            return read_settings(cls, values)
        except SettingError as error:
            raise CheckpointError(str(error)) from None


def _sizes(scale: int) -> dict[str, Architecture]:
    full, lite = f"x{scale}", f"x{scale}-lite"
    dan1, dan, dan_lite = f"x{scale}-dan1", f"x{scale}-dan", f"x{scale}-dan-lite"
    sigmas = SIGMA_RANGES[scale]
    levels = len(LEVELS)
    return {
        full: Architecture(full, scale, "reference", 64, 16, 64, SIGMA_RANGES[scale]),
        lite: Architecture(
            lite, scale, "film", 48, 20, 64, sigmas, CODE_SIZE + levels, levels=levels, experts=2
        ),
        dan1: Architecture(dan1, scale, "dan1", 64, 40, 64, sigmas),
        dan: Architecture(dan, scale, "dan2", 64, 10, 64, sigmas, groups=5),
        dan_lite: Architecture(dan_lite, scale, "dan2", 48, 5, 64, sigmas, groups=4),
    }


ARCHITECTURES: Final[dict[str, Architecture]] = _sizes(2) | _sizes(3) | _sizes(4)
"""The named architectures: `x2`, `x3`, `x4`, their `-lite` sizes, and those of DAN: `-dan1` and
`-dan` in the published sizes of its two versions, and `-dan-lite`."""


def architecture(name: str) -> Architecture:
    """Return the architecture called `name`, one of `ARCHITECTURES`.

    Raises:
        CheckpointError: The name is unknown; the message lists the valid ones.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise CheckpointError(
            f"unknown architecture {shown(name)}; choose one of {', '.join(ARCHITECTURES)}"
        ) from None
