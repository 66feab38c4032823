"""Options of an `Upscaler`: the only statement of their types, defaults, ranges and help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from ikc_deploy.option_fields import Option, check_options
from ikc_deploy.runtime.backends.backend_names import BACKENDS
from ikc_deploy.runtime.backends.base import DEFAULT_CUDA_GRAPH, CudaGraphUse
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.tiling import TileSettings

CLIP_ESTIMATE: Final[Estimate] = "track"
"""Default way to estimate the blur of the frames of one clip; docs/estimation.md explains it."""

MAX_ITERS: Final = 1000
"""Maximum number of corrections: every one has a buffer, and none after a few dozen improves."""

MAX_STREAMS: Final = 64
"""Maximum number of frames at the same time: each needs as much memory as the first."""

MAX_THREADS: Final = 4096
"""Maximum number of CPU cores."""


@dataclass(frozen=True)
class UpscalerOptions:
    """The options of `ikc_deploy.load`, Ray's actors and the commands.

    Raises:
        InputError: A value is of the wrong type or out of range.
    """

    iters: Annotated[
        int | None,
        Option(
            "Number of corrections of the estimated blur.",
            default="the number that the weights recommend",
            minimum=0,
            maximum=MAX_ITERS,
        ),
    ] = None
    backend: Annotated[
        str,
        Option(
            f"Runtime of the networks: auto, or one of {', '.join(BACKENDS)}.",
            heading="Speed and memory",
        ),
    ] = "auto"
    estimate: Annotated[
        Estimate,
        Option(
            "Way to estimate the blur: the loop on the whole frame, corrections on a few textured "
            "crops, or tracking from the previous frame.",
            default=f"full; for clips, {CLIP_ESTIMATE}",
            heading="Blur",
        ),
    ] = "full"
    early_stop: Annotated[
        float | None,
        Option(
            "Change of the kernel code (Euclidean norm) below which the remaining corrections are "
            "skipped.",
            default="run all corrections",
            minimum=0,
            heading="Blur",
        ),
    ] = None
    self_ensemble: Annotated[
        bool,
        Option(
            "Mean of the images of the frame's eight flips and rotations: up to some tenths of a "
            "dB better, eight times slower.",
            heading="Blur",
        ),
    ] = False
    threads: Annotated[
        int,
        Option(
            "Number of CPU cores to use; 0 for all.",
            minimum=0,
            maximum=MAX_THREADS,
            heading="Speed and memory",
        ),
    ] = 0
    streams: Annotated[
        int | None,
        Option(
            "Number of frames of a clip that are processed at the same time on each device, each "
            "with memory of its own.",
            default="2 on a GPU, 1 on a CPU",
            minimum=1,
            maximum=MAX_STREAMS,
            heading="Speed and memory",
        ),
    ] = None
    cuda_graph: Annotated[
        CudaGraphUse,
        Option(
            "Recording of the loop as CUDA graphs on the TensorRT backends: where it is possible, "
            "with an error where it is not, or off."
        ),
    ] = DEFAULT_CUDA_GRAPH
    device: Annotated[
        str,
        Option(
            "GPU by its number, or several (0,1); with the backend openvino CPU, GPU, NPU or AUTO.",
            default="the first GPU or the CPU",
            heading="Speed and memory",
        ),
    ] = "auto"
    precision: Annotated[
        str,
        Option(
            "Precision of the backend openvino: f32, bf16, f16, or auto for the fastest that the "
            "device computes natively and that passes a gate.",
            heading="Speed and memory",
        ),
    ] = "auto"
    tiles: TileSettings = field(default_factory=TileSettings)

    def __post_init__(self) -> None:
        """Require every option in its range."""
        check_options(self)
