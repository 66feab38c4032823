"""The parity gate: written graphs against the plain torch networks, through the whole loop.

Both run Algorithm 1 on the same images, each on its own codes, so that errors add up as they would
in use. Over a limit there is no bundle.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ikc_deploy.bundle import Bundle, Precision
from ikc_deploy.errors import ExportError
from ikc_deploy.evaluation.gaussian8 import degrade_gaussian
from ikc_deploy.evaluation.structured import structured_image
from ikc_deploy.limits import LIMITS
from ikc_deploy.networks.checkpoints import IkcNetworks
from ikc_deploy.runtime.backends import open_backend
from ikc_deploy.runtime.frames import frame_shape
from ikc_deploy.runtime.loop import Session, run

PARITY_ITERS: Final = 3
_SIDE: Final = 32


@dataclass(frozen=True)
class StepParity:
    """How far the graphs are from torch after one step."""

    step: int
    image_db: float
    """PSNR of the two `sr` over all channels, peak 1, before rounding to 8 bits; at most 150 dB."""
    frame_levels: float
    """Largest distance of the 8-bit `frame` from torch's unrounded image, in levels; exact
    graphs have 0.5. 0 where the graph gives no frames."""
    code_error: float
    """Largest absolute difference of any code component."""


def measure_parity(networks: IkcNetworks, bundle: Bundle) -> list[StepParity]:
    """Parity of a written bundle at steps 0..`PARITY_ITERS`, worst over two images and blurs."""
    scale = networks.architecture.scale
    cases = []
    for seed, sigma in enumerate(np.quantile(networks.architecture.sigma_range, (0.3, 0.8))):
        lr = degrade_gaussian(structured_image(_SIDE * scale, seed), float(sigma), scale)
        cases.append(_case(networks, bundle, lr))
    return [
        StepParity(
            step,
            min(case[step].image_db for case in cases),
            max(case[step].frame_levels for case in cases),
            max(case[step].code_error for case in cases),
        )
        for step in range(PARITY_ITERS + 1)
    ]


def check_parity(steps: list[StepParity], precision: Precision) -> dict[str, Any]:
    """The manifest's entry; raises `ExportError` if a step misses the limits of `precision`."""
    limits = LIMITS[precision]
    failed = [
        f"step {s.step}: {s.image_db:.1f} dB, {s.frame_levels:.2f} levels, |dh| {s.code_error:.2g}"
        for s in steps
        if not (
            s.image_db >= limits.image_db
            and s.frame_levels <= limits.frame_levels
            and s.code_error <= limits.code_error
        )
    ]
    if failed:
        raise ExportError(
            f"the {precision} graphs differ from the networks by more than {limits.image_db:g} dB, "
            f"{limits.frame_levels:g} levels or |dh| {limits.code_error:g} allow "
            f"({'; '.join(failed)}). No bundle was written"
            + ("; try --fp32" if precision == "fp16" else "")
        )
    return {"limits": asdict(limits), "steps": [asdict(step) for step in steps]}


def _case(networks: IkcNetworks, bundle: Bundle, lr: NDArray[np.uint8]) -> list[StepParity]:
    """One LR image `[H,W,3]` through both loops."""
    planes = np.ascontiguousarray(lr.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    frames = bundle.manifest.io == "uint8"
    images, codes = _loop_of_graphs(bundle, lr[None] if frames else planes)
    steps = []
    with torch.no_grad():
        tensor = torch.from_numpy(planes)
        code = networks.predictor(tensor)
        for step, (sr, frame) in enumerate(images):
            expected = networks.sftmd(tensor, code)
            levels = 0.0
            if frames:
                exact = 255 * expected.numpy().transpose(0, 2, 3, 1)
                levels = float(np.abs(frame - exact).max())
            code_error = float(np.abs(code.numpy() - codes[step]).max())
            steps.append(StepParity(step, psnr(sr, expected.numpy()), levels, code_error))
            code = networks.corrector(expected, code)
    return steps


def _loop_of_graphs(
    bundle: Bundle, batch: NDArray[Any]
) -> tuple[list[tuple[NDArray[Any], NDArray[Any]]], list[NDArray[Any]]]:
    """The (sr, frame) of every step and every code, by ONNX Runtime from the written files."""
    backend = open_backend("onnxruntime", bundle)
    shape = frame_shape(batch, bundle.manifest.io)
    session = Session(backend, bundle.manifest, shape, PARITY_ITERS)
    images: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def keep(_: int) -> None:
        images.append((backend.download(session.sr), backend.download(session.frame)))

    backend.upload(batch, session.lr)
    run(backend, session.blind(), keep)
    codes = [backend.download(code) for code in session.codes]
    backend.close()
    return images, codes


def psnr(image: NDArray[Any], expected: NDArray[Any]) -> float:
    """PSNR in dB, peak 1, at most 150; minus infinity if a value is not finite."""
    error = float(np.mean((image.astype(np.float64) - expected.astype(np.float64)) ** 2))
    if not math.isfinite(error):
        return -math.inf
    return min(150.0, -10 * math.log10(max(error, 1e-30)))
