"""Which networks a checkpoint holds: frozen settings, and the named sizes that ship.

Three designs share every graph contract. `reference` loads the published checkpoints tensor by
tensor. The others are ours, chosen by measurement (docs/training.md): their estimators read sigma
from the mean *and* standard deviation of features, and their F works at LR resolution up to one
last convolution. `compact` is SFTMD with a code map that is padded by replication, so that the code
enters as a plain bias; `film` is a plain residual trunk with a scale and a shift per channel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

from ikc_deploy.errors import CheckpointError
from ikc_deploy.kernels import CODE_SIZE, LEVELS, SIGMA_RANGES, Family

Design = Literal["reference", "compact", "film"]


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
        if not isinstance(self.scale, int) or self.scale not in SIGMA_RANGES:
            raise CheckpointError(
                f"scale must be one of {sorted(SIGMA_RANGES)}, got {self.scale!r}"
            )
        if self.design not in get_args(Design):
            raise CheckpointError(
                f"design must be one of {list(get_args(Design))}, got {self.design!r}"
            )
        if self.kernels not in get_args(Family):
            raise CheckpointError(
                f"kernels must be one of {list(get_args(Family))}, got {self.kernels!r}"
            )
        for name in ("channels", "blocks", "estimator_channels", "code_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise CheckpointError(f"{name} must be a positive integer, got {value!r}")
        low, high = self.sigma_range
        if not 0 < low < high:
            raise CheckpointError(f"sigma_range needs 0 < low < high, got {self.sigma_range}")
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
    def from_dict(cls, values: dict[str, Any]) -> Architecture:
        """The inverse of `to_dict`. Raises `CheckpointError` for missing or unknown names."""
        names = {field.name for field in fields(cls)}
        optional = {"code_size", "kernels", "levels"}
        required = names - optional
        if not required <= set(values) <= names:
            raise CheckpointError(
                f"an architecture needs {sorted(required)} and may have {sorted(optional)}; "
                f"got {sorted(values)}"
            )
        try:
            low, high = values["sigma_range"]
        except (TypeError, ValueError):
            raise CheckpointError(
                f"sigma_range must be two numbers, got {values['sigma_range']!r}"
            ) from None
        return cls(**(values | {"sigma_range": (float(low), float(high))}))


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
