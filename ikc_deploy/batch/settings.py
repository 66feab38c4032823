"""Settings of a batch. Needs neither Ray nor PyAV."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.picture import MAX_PIXELS
from ikc_deploy.imaging.postprocessing import NO_POSTPROCESSING, Postprocessing
from ikc_deploy.option_fields import Option, check_options
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.upscaler import Upscaler, load_bundle
from ikc_deploy.video.encoder_settings import EncoderSettings


@dataclass(frozen=True)
class ActorSettings:
    """The settings with which every actor opens its upscaler.

    Raises:
        InputError: The way to estimate the blur is "track".
    """

    bundle: Path
    """Folder of the bundle, accessible from all machines."""
    options: UpscalerOptions = field(default_factory=UpscalerOptions)
    """Options of the upscaler. Clips are split among actors, which excludes the estimate "track";
    0 threads choose the number from the size of the cluster."""
    sigma: float | None = None
    """Blur in pixels of the output; None to estimate it."""

    def __post_init__(self) -> None:
        """Refuse tracking, which needs the frames of a clip in order on one actor."""
        if self.options.estimate == "track":
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
        return load_bundle(self.bundle, self.options)


@dataclass(frozen=True)
class ClusterSettings:
    """The Ray cluster and the number of actors.

    Raises:
        InputError: `actors` is less than 1.
    """

    address: Annotated[
        str | None,
        Option(
            "Address of the Ray cluster, or auto for the one running on this machine.",
            default="a new one for this run",
            heading="Distributed",
        ),
    ] = None
    actors: Annotated[
        int | None,
        Option(
            "Number of actors; each uses one GPU or --threads cores.",
            default="as many as fit",
            minimum=1,
            heading="Distributed",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Require at least one actor."""
        if isinstance(self.actors, int) and self.actors < 1:
            raise InputError(f"there must be at least one actor, got {self.actors}")
        check_options(self)


@dataclass(frozen=True)
class BatchSettings:
    """The inputs, the output folder and all settings of a batch."""

    inputs: tuple[Path, ...]
    """Images, clips and folders of them."""
    out: Path
    """Output folder."""
    upscaler: ActorSettings
    """Settings of the upscaler of every actor."""
    encoder: EncoderSettings
    """Codec and quality of clips."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Cluster and number of actors."""
    max_pixels: int | None = MAX_PIXELS
    """Maximum number of pixels of an image; None for no limit."""
    postprocessing: Postprocessing = NO_POSTPROCESSING
    """Strength and output size of images and clips."""
