"""How a batch is asked for. Needs neither Ray nor PyAV."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ikc_deploy import load
from ikc_deploy.errors import InputError
from ikc_deploy.imaging.image_io import MAX_PIXELS
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.runtime.upscaler import Upscaler

if TYPE_CHECKING:
    from ikc_deploy.video.encoders import EncoderSettings


@dataclass(frozen=True)
class UpscalerSettings:
    """How every actor opens its upscaler."""

    bundle: Path
    backend: str = "auto"
    iters: int | None = None
    """Corrections; None for what the bundle recommends."""
    sigma: float | None = None
    """The blur in pixels of the output; None to estimate it."""
    estimate: Estimate = "full"
    """How it is estimated. A clip is cut among actors, so it cannot be tracked."""
    tiles: TileSettings = field(default_factory=TileSettings)
    threads: int = 0
    """CPU cores of each actor; 0 lets the cluster's size decide."""

    def __post_init__(self) -> None:
        if self.estimate == "track":
            raise InputError(
                "a clip is cut among actors, so that its blur cannot be tracked from one end to "
                "the other; give --estimate crops or full"
            )

    def open(self) -> Upscaler:
        """Raises `BundleError` or `BackendError`."""
        return load(
            self.bundle,
            self.backend,
            self.iters,
            threads=self.threads,
            estimate=self.estimate,
            tile=self.tiles.tile,
            max_memory=self.tiles.max_memory,
        )


@dataclass(frozen=True)
class ClusterSettings:
    """Where the actors are, and how many."""

    address: str | None = None
    """Of a cluster that runs already, or "auto" for the one of this machine; None starts Ray here,
    for this run alone."""
    actors: int | None = None
    """None for as many as there is room for."""

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise InputError(f"there must be at least one actor, got {self.actors}")


@dataclass(frozen=True)
class BatchSettings:
    """What is upscaled, into which folder, and how."""

    inputs: tuple[Path, ...]
    out: Path
    upscaler: UpscalerSettings
    encoder: EncoderSettings
    """Of clips."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    max_pixels: int | None = MAX_PIXELS
    """Of the largest picture that is read; None for any."""
