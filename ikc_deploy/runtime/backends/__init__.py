"""Backends: what runs the three graphs of a bundle."""

from __future__ import annotations

from typing import Final

from ikc_deploy.bundle import Bundle
from ikc_deploy.errors import BackendError, InputError
from ikc_deploy.runtime.backends.base import Backend

BACKENDS: Final = ("onnxruntime",)
"""Names that `open_backend` knows, best first."""


def open_backend(name: str, bundle: Bundle, threads: int = 0) -> Backend:
    """The backend called `name` ("auto" for the best) for the graphs of `bundle`.

    `threads` bounds the CPU cores of CPU backends; 0 means all.
    Raises `InputError` for negative `threads`, `BackendError` for an unknown name or a backend that
    does not load here.
    """
    from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu

    if name not in ("auto", *BACKENDS):
        raise BackendError(
            f"there is no backend '{name}'; choose one of auto, {', '.join(BACKENDS)}"
        )
    if threads < 0:
        raise InputError(f"threads must be 0 (all cores) or more, got {threads}")
    return OnnxRuntimeCpu(bundle, threads)
