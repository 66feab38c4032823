"""ikc-upscale: options of the output."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ikc_deploy.imaging.output_paths import ExistingOutputs
from ikc_deploy.imaging.picture import MAX_PIXELS
from ikc_deploy.option_fields import Option


@dataclass(frozen=True)
class OutputOptions:
    """Where and how results are written."""

    out: Annotated[
        Path | None,
        Option(
            "Output: a file for one image or clip, a folder for images, a name such as %06d.png "
            "for frames, or - for a pipe.",
            flags=("--out", "-o"),
        ),
    ] = None
    as_json: Annotated[
        bool, Option("Print one JSON object for each output.", flags=("--json",))
    ] = False
    save_steps: Annotated[
        Path | None,
        Option(
            "Folder for the image of every step and a figure of the kernels, named after the "
            "input.",
            heading="Output",
        ),
    ] = None
    save_kernel: Annotated[
        Path | None,
        Option(
            "NumPy file (.npy) for the estimated blur kernel of a single image: float32, 21x21 HR "
            "pixels, of the last step.",
            heading="Output",
        ),
    ] = None
    recursive: Annotated[
        bool,
        Option("Search subfolders too; the outputs get the same subfolders.", heading="Output"),
    ] = False
    existing: ExistingOutputs = field(default_factory=ExistingOutputs)
    strip: Annotated[
        bool,
        Option(
            "Write no metadata (EXIF, XMP, IPTC, texts, density), except what the colours depend "
            "on.",
            heading="Output",
        ),
    ] = False
    max_pixels: Annotated[
        int | None,
        Option(
            "Pixels of the largest image that is read, for example 200M, or none; it protects "
            "against files made to exhaust memory.",
            default=f"{MAX_PIXELS / 1e6:.0f}M",
            heading="Speed and memory",
            metavar="COUNT",
        ),
    ] = MAX_PIXELS

    @property
    def saved(self) -> list[str]:
        """Names of the given options that save the work of the estimator."""
        places = {"--save-steps": self.save_steps, "--save-kernel": self.save_kernel}
        return [name for name, place in places.items() if place is not None]

    @property
    def only_for_images(self) -> list[str]:
        """Names of the given options that have no meaning for a clip."""
        return [*self.saved, *["--strip"] * self.strip]
