"""Which networks a checkpoint holds: frozen settings, and the named sizes that ship.

Three designs share every graph contract. `reference` loads the published checkpoints tensor by
tensor. The others are ours, chosen by measurement (docs/training.md): their estimators read sigma
from the mean *and* standard deviation of features, and their F works at LR resolution up to one
last convolution. `compact` is SFTMD with a code map that is padded by replication, so that the code
enters as a plain bias; `film` is a plain residual trunk with a scale and a shift per channel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ikc_deploy.errors import CheckpointError
from ikc_deploy.kernels import CODE_SIZE, KERNEL_SIZE, LEVELS, SIGMA_RANGES, Family
from ikc_deploy.toml_settings import SettingError, read_settings, shown

Design = Literal["reference", "compact", "film"]

SIGMA_LIMITS: Final = (0.05, float(KERNEL_SIZE))
"""Sigmas between a kernel of one pixel and a flat one."""

MIN_SPAN: Final = 0.1
"""Of a sigma range; kernels of a narrower one are too alike to be told apart in float32."""

_MAX: Final = {
    "channels": 512,
    "blocks": 128,
    "estimator_channels": 512,
    "code_size": KERNEL_SIZE**2,
}
"""Eight times the published sizes, and as many components as a kernel has pixels."""


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the three networks, except their weights."""

    name: str
    """A label for people; the other fields decide the shapes."""
    scale: int
    """SR side over LR side: 2, 3 or 4."""
    design: Design
    channels: int
    """Feature channels of the SR network F."""
    blocks: int
    """Residual blocks of F."""
    estimator_channels: int
    """Feature channels of the predictor P and the corrector C at their widest."""
    sigma_range: tuple[float, float]
    """Sigma of the Gaussians that the networks are made for, in HR pixels; of both axes."""
    code_size: int = CODE_SIZE
    kernels: Family = "isotropic"
    """The family of Gaussians that the networks are made for."""
    levels: int = 0
    """Trailing components of the code that say how noisy and how compressed the LR image is
    (`ikc_deploy.kernels.LEVELS`), instead of how blurred: 0 or 2."""

    def __post_init__(self) -> None:
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
        if self.levels and self.design == "reference":
            raise CheckpointError("networks of the reference design have no levels in their code")
        if self.code_size <= self.levels:
            raise CheckpointError(
                f"a code of {self.code_size} components has no room for {self.levels} levels "
                "and a kernel; raise code_size"
            )

    @property
    def kernel_components(self) -> int:
        """Components of the code that describe the blur kernel."""
        return self.code_size - self.levels

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Architecture:
        """The inverse of `to_dict`, for values from outside.

        Raises `CheckpointError` for missing or unknown names, other types and impossible values.
        """
        try:
            return read_settings(cls, values)
        except SettingError as error:
            raise CheckpointError(str(error)) from None


def _sizes(scale: int) -> dict[str, Architecture]:
    full, sigma_range = f"x{scale}", SIGMA_RANGES[scale]
    lite, film = f"x{scale}-lite", f"x{scale}-film"
    levels = len(LEVELS)
    code_size = CODE_SIZE + levels
    return {
        full: Architecture(full, scale, "reference", 64, 16, 64, sigma_range),
        lite: Architecture(
            lite, scale, "compact", 48, 8, 64, sigma_range, code_size, levels=levels
        ),
        film: Architecture(film, scale, "film", 48, 20, 64, sigma_range, code_size, levels=levels),
    }


ARCHITECTURES: Final[dict[str, Architecture]] = _sizes(2) | _sizes(3) | _sizes(4)
"""The named architectures: `x2`, `x3`, `x4`, and their `-lite` and `-film` sizes."""


def architecture(name: str) -> Architecture:
    """The named architecture. Raises `CheckpointError` with the valid names."""
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise CheckpointError(
            f"there is no architecture named '{name}'; choose one of {', '.join(ARCHITECTURES)}"
        ) from None
