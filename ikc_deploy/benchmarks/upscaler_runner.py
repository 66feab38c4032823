"""Our own candidates: an `Upscaler` on one backend, in one precision."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.benchmarks.case import BenchmarkCase, planes_of
from ikc_deploy.benchmarks.flops import loop_macs
from ikc_deploy.benchmarks.runners import LastImage, Timing
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import MissingExtraError
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.upscaler import load_bundle


class UpscalerRunner(LastImage):
    """A runner of `upscaler(frames, **arguments)`; `arguments` select how the blur is estimated.

    Args:
        bundle: Bundle to measure.
        options: Options that load it.
        case: Size and number of frames, corrections and threads.
        arguments: Keyword arguments of every call.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: UpscalerOptions,
        case: BenchmarkCase,
        arguments: Mapping[str, Any],
    ) -> None:
        self._upscaler = load_bundle(bundle, options)
        self._arguments = arguments
        self._case = case
        frames = case.frames()
        self._frames = frames if bundle.manifest.io == "uint8" else planes_of(frames)
        self.precision: str = bundle.manifest.precision
        self.library = self._upscaler.backend.name

    def run(self) -> Timing:
        """Run one call on the case's frames and return its times."""
        started = time.perf_counter()
        result = self._upscaler(self._frames, **self._arguments)
        total = 1e3 * (time.perf_counter() - started)
        self._image = result.image
        return Timing(
            total, {stage: result.timings[stage] for stage in self._upscaler.bundle.loop.graphs}
        )

    def image(self) -> NDArray[Any]:
        """Return the result of the last call, `[N,sH,sW,3]` uint8.

        Raises:
            ValueError: There was no call yet.
        """
        image = super().image()
        if image.dtype == np.uint8:
            return image
        return np.rint(255 * image.transpose(0, 2, 3, 1)).astype(np.uint8)

    def macs(self) -> int | None:
        """Return the multiply-accumulates of the exact loop; None for others, or without `onnx`."""
        if self._arguments:
            return None
        try:
            return loop_macs(self._upscaler.bundle, self._case)
        except MissingExtraError:
            return None

    def close(self) -> None:
        """Close the upscaler."""
        self._upscaler.close()
