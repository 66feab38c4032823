"""Blind super-resolution by Iterative Kernel Correction, for video and camera pipelines.

    import ikc_deploy

    with ikc_deploy.load() as upscaler:
        result = upscaler(frame)        # RGB uint8 [H,W,3]
        result.image, result.sigma      # [4H,4W,3] uint8, the estimated blur

Importing this package imports numpy and nothing heavier; graphs and devices wait for `load`.
"""

from __future__ import annotations

from os import PathLike

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import (
    BackendError,
    BundleError,
    CheckpointError,
    EngineError,
    ExportError,
    IkcError,
    InputError,
    KernelError,
    MissingExtraError,
    OutOfMemoryError,
    OutputError,
    RecipeError,
)
from ikc_deploy.kernels import KernelBasis, gaussian_kernel
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.stream import Status, Stream
from ikc_deploy.runtime.tiling import Tile, TileSettings
from ikc_deploy.runtime.upscaler import (
    DEFAULT_STREAMS,
    Result,
    Upscaler,
    load_bundle,
)
from ikc_deploy.version import __version__

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "EngineError",
    "Estimate",
    "ExportError",
    "IkcError",
    "InputError",
    "KernelBasis",
    "KernelError",
    "MissingExtraError",
    "OutOfMemoryError",
    "OutputError",
    "RecipeError",
    "Result",
    "Status",
    "Stream",
    "Tile",
    "Upscaler",
    "__version__",
    "gaussian_kernel",
    "load",
]


def load(
    bundle: str | PathLike[str] | Bundle | None = None,
    backend: str = "auto",
    iters: int | None = None,
    *,
    threads: int = 0,
    streams: int = DEFAULT_STREAMS,
    cuda_graph: bool = True,
    estimate: Estimate = "full",
    tile: Tile = "auto",
    max_memory: int | None = None,
) -> Upscaler:
    """An `Upscaler`, ready for frames.

    `bundle` is a folder written by `ikc-export`, or None for the shipped weights, which
    are exported into the user's cache on first use (that needs the `export` extra; later uses do
    not). `iters` is t, the number of corrections: the loop is P, F, then t times C, F. None takes
    what the weights were measured to gain from (`Manifest.recommended_iters`); the paper's is 7.

    `backend` is "tensorrt", "tensorrt-rtx" (both need an engine in the bundle), "onnxruntime-cuda",
    "onnxruntime" (the CPU), or "auto" for the first of these that loads; a named one is never
    replaced by another. `threads` bounds CPU cores of the CPU backend, 0 for all. `streams` is the
    number of frames that `Upscaler.submit` works on at once. `cuda_graph=False` starts each network
    of the loop by itself where TensorRT would run all of it as one recorded graph.

    `estimate` is how the blur is found: "full" (that loop, on the whole frame), "crops" (corrected
    on four textured crops, then one SR pass over the frame) or "track" (for the frames of one clip,
    in order: from the last frame's blur, with one correction). `tile` is the side in LR pixels of
    the tiles that frames are cut into, "auto" for none until memory calls for them, or None for
    none; `max_memory`, in bytes, is what "auto" may use (None: half of what is free).

    Raises `BundleError` if the bundle is missing, damaged or from another version, `BackendError`
    if the backend does not run here, `EngineError` if the bundle has no engine for it, and
    `MissingExtraError` if an export is needed and cannot be made.
    """
    if bundle is None:
        from ikc_deploy.export.default_bundle import default_bundle

        bundle = default_bundle()
    return load_bundle(
        bundle,
        backend,
        iters,
        threads,
        streams,
        cuda_graph=cuda_graph,
        estimate=estimate,
        tiles=TileSettings(tile, max_memory),
    )
