"""Blind super-resolution by Iterative Kernel Correction, for video and camera pipelines.

    import ikc_deploy

    with ikc_deploy.load() as upscaler:
        result = upscaler(frame)        # RGB uint8 [H,W,3]
        result.image, result.sigma      # [4H,4W,3] uint8, the estimated blur

Importing this package imports nothing heavier than numpy; graphs and devices are opened by `load`.
"""

from ikc_deploy.bundle.file_records import FileRecord
from ikc_deploy.bundle.manifest import Bundle, FrameIO, Manifest, Precision, UsrnetRecord
from ikc_deploy.bundle.measurements import (
    Deviation,
    EngineOutput,
    EngineStep,
    GraphParity,
    Int8Loss,
    Int8Parity,
    Parity,
    StepParity,
    UsrnetParity,
    Verification,
)
from ikc_deploy.errors import (
    BackendError,
    BundleError,
    CameraError,
    CheckpointError,
    DiskFullError,
    EncoderError,
    EngineError,
    ExportError,
    IkcError,
    InputError,
    KernelError,
    MissingExtraError,
    NoVideoError,
    OutOfMemoryError,
    OutputError,
    RecipeError,
    TrainingError,
    UnreadableClipError,
    VideoError,
)
from ikc_deploy.imaging.postprocessing import Postprocessing
from ikc_deploy.kernels import KernelBasis, gaussian_kernel
from ikc_deploy.kernels.gaussians import Family
from ikc_deploy.loading import load
from ikc_deploy.loops import GraphStep, Loop, LoopGraph, RunGraph
from ikc_deploy.option_fields import Heading, Option
from ikc_deploy.runtime.backends.base import (
    Backend,
    Binding,
    BoundGraph,
    Buffer,
    CapturedGraph,
    CudaGraphUse,
    DeviceFrames,
    Event,
    Index,
    PlaneIndex,
)
from ikc_deploy.runtime.cuda.arrays import DeviceArray
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.frame_margin import Border
from ikc_deploy.runtime.nonblind import NonBlind
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.pipeline import ResultFuture
from ikc_deploy.runtime.result import Result
from ikc_deploy.runtime.stream import Status, Stream
from ikc_deploy.runtime.tiling import Tile, TileSettings
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.version import __version__

__all__ = [
    "Backend",
    "BackendError",
    "Binding",
    "Border",
    "BoundGraph",
    "Buffer",
    "Bundle",
    "BundleError",
    "CameraError",
    "CapturedGraph",
    "CheckpointError",
    "CudaGraphUse",
    "Deviation",
    "DeviceArray",
    "DeviceFrames",
    "DiskFullError",
    "EncoderError",
    "EngineError",
    "EngineOutput",
    "EngineStep",
    "Estimate",
    "Event",
    "ExportError",
    "Family",
    "FileRecord",
    "FrameIO",
    "GraphParity",
    "GraphStep",
    "Heading",
    "IkcError",
    "Index",
    "InputError",
    "Int8Loss",
    "Int8Parity",
    "KernelBasis",
    "KernelError",
    "Loop",
    "LoopGraph",
    "Manifest",
    "MissingExtraError",
    "NoVideoError",
    "NonBlind",
    "Option",
    "OutOfMemoryError",
    "OutputError",
    "Parity",
    "PlaneIndex",
    "Postprocessing",
    "Precision",
    "RecipeError",
    "Result",
    "ResultFuture",
    "RunGraph",
    "Status",
    "StepParity",
    "Stream",
    "Tile",
    "TileSettings",
    "TrainingError",
    "UnreadableClipError",
    "Upscaler",
    "UpscalerOptions",
    "UsrnetParity",
    "UsrnetRecord",
    "Verification",
    "VideoError",
    "__version__",
    "gaussian_kernel",
    "load",
]
