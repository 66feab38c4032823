"""Settings of a batch. Needs neither Ray nor PyAV."""

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
    """The settings with which every actor opens its upscaler.

    Raises:
        InputError: `estimate` is "track".
    """

    bundle: Path
    """Folder of the bundle, accessible from all machines."""
    backend: str = "auto"
    """Name of the backend, as in `ikc_deploy.load`."""
    iters: int | None = None
    """Number of corrections; None for what the bundle recommends."""
    sigma: float | None = None
    """Blur in pixels of the output; None to estimate it."""
    estimate: Estimate = "full"
    """Estimation mode, "full" or "crops". Clips are split among actors, which excludes "track"."""
    tiles: TileSettings = field(default_factory=TileSettings)
    """Tile size and memory limit."""
    threads: int = 0
    """CPU cores of each actor; 0 to choose from the size of the cluster."""

    def __post_init__(self) -> None:
        """Refuse tracking, which needs the frames of a clip in order on one actor."""
        if self.estimate == "track":
            raise InputError(
                "invalid estimate 'track' for a batch: clips are split among actors, so the blur "
                "cannot be tracked; use --estimate crops or full"
            )

    def open(self) -> Upscaler:
        """Open the upscaler.

        Raises:
            BundleError: The bundle is missing or damaged.
            BackendError: The backend does not run here.
        """
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
    """The Ray cluster and the number of actors.

    Raises:
        InputError: `actors` is less than 1.
    """

    address: str | None = None
    """Address of a running cluster, or "auto" for the one of this machine; None to start Ray on
    this machine for this run only."""
    actors: int | None = None
    """Number of actors; None for as many as fit."""

    def __post_init__(self) -> None:
        """Require at least one actor."""
        if self.actors is not None and self.actors < 1:
            raise InputError(f"there must be at least one actor, got {self.actors}")


@dataclass(frozen=True)
class BatchSettings:
    """The inputs, the output folder and all settings of a batch."""

    inputs: tuple[Path, ...]
    """Images, clips and folders of them."""
    out: Path
    """Output folder."""
    upscaler: UpscalerSettings
    """Settings of the upscaler of every actor."""
    encoder: EncoderSettings
    """Codec and quality of clips."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Cluster and number of actors."""
    max_pixels: int | None = MAX_PIXELS
    """Maximum number of pixels of an image; None for no limit."""
