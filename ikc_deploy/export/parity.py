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


@dataclass(frozen=True)
class ParityLimits:
    """What a bundle must reach at every step."""

    image_db: float
    frame_levels: float
    code_error: float


LIMITS: Final[dict[Precision, ParityLimits]] = {
    "fp32": ParityLimits(image_db=90.0, frame_levels=0.51, code_error=1e-4),
    "fp16": ParityLimits(image_db=50.0, frame_levels=6.0, code_error=2e-2),
    "int8": ParityLimits(image_db=25.0, frame_levels=128.0, code_error=1.0),
}
"""By precision; those of INT8 only tell a broken graph, its quality has a gate of its own.
For scale: rounding to 8 bits costs 58.9 dB, and one level everywhere 48.1 dB."""


def structured_image(side: int, seed: int) -> NDArray[np.uint8]:
    """An RGB image `[side,side,3]` with edges, lines, gradients and texture at several scales.

    Noise alone would hide errors that only smooth areas and edges show.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    image = np.stack([0.5 + 0.3 * x, 0.5 + 0.3 * y, 0.6 - 0.3 * x * y], axis=-1)
    for _ in range(12):
        angle, offset = random.uniform(0, np.pi), random.uniform(-0.2, 0.9)
        edge = np.cos(angle) * x + np.sin(angle) * y > offset
        image[edge] += random.uniform(-0.25, 0.25, 3)
    for cycles in (4, 9, 20):
        angle, phase = random.uniform(0, np.pi, 2)
        wave = np.sin(2 * np.pi * cycles * (np.cos(angle) * x + np.sin(angle) * y) + phase)
        image += 0.06 * wave[..., None] * random.uniform(0.5, 1, 3)
    image += random.normal(0, 0.01, image.shape)
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


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
            steps.append(StepParity(step, _psnr(sr, expected.numpy()), levels, code_error))
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


def _psnr(image: NDArray[Any], expected: NDArray[Any]) -> float:
    error = float(np.mean((image.astype(np.float64) - expected.astype(np.float64)) ** 2))
    if not math.isfinite(error):
        return -math.inf
    return min(150.0, -10 * math.log10(max(error, 1e-30)))
