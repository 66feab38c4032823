"""Blind super-resolution by Iterative Kernel Correction, for video and camera pipelines.

    import ikc_deploy

    with ikc_deploy.load() as upscaler:
        result = upscaler(frame)        # RGB uint8 [H,W,3]
        result.image, result.sigma      # [4H,4W,3] uint8, the estimated blur

Importing this package imports numpy and nothing heavier; graphs and devices wait for `load`.
"""

from __future__ import annotations

from os import PathLike

from ikc_deploy.bundle import Bundle
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
    RecipeError,
)
from ikc_deploy.kernels import KernelBasis, gaussian_kernel
from ikc_deploy.runtime.upscaler import DEFAULT_ITERS, Result, Upscaler, load_bundle
from ikc_deploy.version import __version__

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "EngineError",
    "ExportError",
    "IkcError",
    "InputError",
    "KernelBasis",
    "KernelError",
    "MissingExtraError",
    "RecipeError",
    "Result",
    "Upscaler",
    "__version__",
    "gaussian_kernel",
    "load",
]


def load(
    bundle: str | PathLike[str] | Bundle | None = None,
    backend: str = "auto",
    iters: int = DEFAULT_ITERS,
    *,
    threads: int = 0,
) -> Upscaler:
    """An `Upscaler`, ready for frames.

    `bundle` is a folder written by `ikc-export`, or None for the shipped weights, which
    are exported into the user's cache on first use (that needs the `export` extra; later uses do
    not). `backend` is "auto" or "onnxruntime". `iters` is t, the number of corrections: the loop is
    P, F, then t times C, F. `threads` bounds CPU cores, 0 for all.

    Raises `BundleError` if the bundle is missing, damaged or from another version, `BackendError`
    if no backend runs here, `MissingExtraError` if an export is needed and cannot be made.
    """
    if bundle is None:
        from ikc_deploy.default_bundle import default_bundle

        bundle = default_bundle()
    return load_bundle(bundle, backend, iters, threads)
