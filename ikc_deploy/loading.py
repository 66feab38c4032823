"""`load`: an `Upscaler` for shipped weights, a checkpoint or a bundle."""

from __future__ import annotations

from os import PathLike, fspath

from ikc_deploy.arguments import is_whole
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.backends.base import CudaGraphUse
from ikc_deploy.runtime.estimation import Estimate
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.tiling import Tile, TileSettings
from ikc_deploy.runtime.upscaler import Upscaler, load_bundle
from ikc_deploy.text import shown
from ikc_deploy.weights import DEFAULT_WEIGHTS, is_shipped_name


def load(
    bundle: str | PathLike[str] | Bundle | None = None,
    backend: str = UpscalerOptions.backend,
    iters: int | None = UpscalerOptions.iters,
    *,
    weights: str | PathLike[str] | None = None,
    threads: int = UpscalerOptions.threads,
    streams: int | None = UpscalerOptions.streams,
    cuda_graph: CudaGraphUse = UpscalerOptions.cuda_graph,
    device: str | int = UpscalerOptions.device,
    precision: str = UpscalerOptions.precision,
    estimate: Estimate = UpscalerOptions.estimate,
    early_stop: float | None = UpscalerOptions.early_stop,
    self_ensemble: bool = UpscalerOptions.self_ensemble,
    tile: Tile = TileSettings.tile,
    max_memory: int | None = TileSettings.max_memory,
) -> Upscaler:
    """Load shipped weights, a checkpoint or a bundle, and return an `Upscaler`.

    The caller owns the `Upscaler`: use it as a context manager, or call its `close` method.

    Args:
        bundle: A folder written by `ikc-export`, or an opened `Bundle`; None to use `weights`.
        backend: "tensorrt" or "tensorrt-rtx" (both need an engine in the bundle),
            "onnxruntime-cuda", "openvino" (CPUs, and Intel's GPUs and NPUs), "onnxruntime" (the
            CPU), or "auto" for the first of these that loads. There is no fallback from a backend
            that is requested by name.
        iters: Number t >= 0 of corrections. The loop runs predictor P and SR network F, then t
            times corrector C and F (IKC, Algorithm 1). None uses the number recommended for the
            weights (`Manifest.recommended_iters`); the paper uses 7.
        weights: Name of shipped weights ("x4-lite", "x3-lite", "x2-lite" or "x4-aniso"), path of a
            checkpoint, or "random:ARCHITECTURE"; None for "x4-lite". The graphs are cached on first
            use. The `export` extra is needed only for architectures that are not shipped.
        threads: Number of CPU cores that a CPU backend may use; 0 for all.
        streams: Number of frames that `Upscaler.submit` and `Upscaler.stream` process concurrently
            on each device, at least 1, each with its own buffers; None for 2 on a GPU and 1 on a
            CPU.
        cuda_graph: Whether the TensorRT backends record the loop as CUDA graphs. "auto": where
            possible, with a warning if the driver refuses; "require": raise an error if it is not
            possible; "off": launch each network separately.
        device: Number of the GPU, or several as "0,1": submitted frames and streams are distributed
            over all of them, single calls use the first. For the backend "openvino": "CPU", "GPU",
            "NPU", or "AUTO" for a GPU if there is one, else the CPU. "auto" is the first GPU, or
            OpenVINO's CPU.
        precision: Precision of the backend "openvino" for all operations on images that the graphs
            do not quantise: "f32", "bf16", "f16", or "auto" for a 16-bit type that the device
            supports natively and that passes an accuracy check on first use, else "f32". The
            predictor and kernel codes stay in float32.
        estimate: How the blur is estimated. "full": run the loop on the whole frame. "crops": run
            the corrections on four textured crops, then one SR pass over the frame. "track": for
            the frames of one clip in order; start from the previous frame's kernel code and run one
            correction.
        early_stop: Change of the kernel code (Euclidean norm) below which the remaining
            corrections are skipped, for example 0.001; None to run all corrections.
        self_ensemble: Whether to average the images of the eight flips and rotations of each frame,
            all with the frame's kernel code: a few tenths of a dB better, eight times slower.
            Frames must be in host memory.
        tile: Tile size in LR pixels. "auto" splits only frames that would exceed the allowed
            memory; None never splits.
        max_memory: Maximum memory in bytes for one frame with `tile="auto"`; None for half of the
            free memory.

    Returns:
        The `Upscaler`. Its graphs are loaded; buffers are allocated on the first call.

    Raises:
        InputError: An argument is of the wrong type or out of range, or `bundle` and `weights` are
            both given.
        CheckpointError: `weights` are unknown or damaged.
        BundleError: The bundle is missing, damaged or from another version.
        BackendError: The backend does not run on this machine.
        EngineError: The bundle has no engine for the backend.
        MissingExtraError: The backend is not installed; or the weights must be exported, and the
            `export` extra is not installed.

    Example:
        >>> import numpy as np
        >>> import ikc_deploy
        >>> frame = np.zeros((90, 160, 3), np.uint8)
        >>> with ikc_deploy.load(backend="onnxruntime") as upscaler:  # doctest: +SKIP
        ...     result = upscaler(frame)
        >>> result.image.shape  # doctest: +SKIP
        (360, 640, 3)
    """
    options = UpscalerOptions(
        iters=iters,
        backend=backend,
        estimate=estimate,
        early_stop=early_stop,
        self_ensemble=self_ensemble,
        threads=threads,
        streams=streams,
        cuda_graph=cuda_graph,
        device=str(device) if is_whole(device, 0) else device,  # type: ignore[arg-type]
        precision=precision,
        tiles=TileSettings(tile, max_memory),
    )
    if bundle is not None and weights is not None:
        raise InputError("got bundle and weights: give only one of them")
    if bundle is None:
        from ikc_deploy.export.default_bundle import default_bundle

        bundle = default_bundle(_weights_spec(weights))
    elif isinstance(bundle, str) and is_shipped_name(bundle):
        raise InputError(
            f"'{bundle}' is a name of shipped weights, not a bundle; give weights='{bundle}'"
        )
    return load_bundle(bundle, options)


def _weights_spec(weights: str | PathLike[str] | None) -> str:
    if weights is None:
        return DEFAULT_WEIGHTS
    if not isinstance(weights, str | PathLike):
        raise InputError(f"weights must be a name or a path, got {shown(weights)}")
    return fspath(weights)
