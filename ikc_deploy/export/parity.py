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

from ikc_deploy.bundle import Bundle, FrameIO
from ikc_deploy.errors import ExportError
from ikc_deploy.evaluation.gaussian8 import degrade_gaussian
from ikc_deploy.export.precision import Precision
from ikc_deploy.networks.checkpoints import IkcNetworks
from ikc_deploy.runtime.upscaler import load_bundle

PARITY_ITERS: Final = 3
_SIDE: Final = 32


@dataclass(frozen=True)
class StepParity:
    """How far the graphs are from torch after one step."""

    step: int
    image_db: float
    """PSNR of the SR images against each other over all channels, peak 1, in dB (capped at 150)."""
    code_error: float
    """Largest absolute difference of any code component."""


@dataclass(frozen=True)
class ParityLimits:
    """What a bundle must reach at every step."""

    image_db: float
    code_error: float


LIMITS: Final[dict[tuple[Precision, FrameIO], ParityLimits]] = {
    ("fp32", "float"): ParityLimits(image_db=100.0, code_error=1e-4),
    ("fp32", "uint8"): ParityLimits(image_db=70.0, code_error=1e-4),
    ("fp16", "float"): ParityLimits(image_db=50.0, code_error=2e-2),
    ("fp16", "uint8"): ParityLimits(image_db=50.0, code_error=2e-2),
}
"""By precision and io. With io "uint8" both images are rounded first, and a value near a half may go
either way: 70 dB is one value in 150 off by one level."""


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
            step, min(c[step].image_db for c in cases), max(c[step].code_error for c in cases)
        )
        for step in range(PARITY_ITERS + 1)
    ]


def check_parity(steps: list[StepParity], precision: Precision, io: FrameIO) -> dict[str, Any]:
    """The manifest's entry; raises `ExportError` if a step misses the limits."""
    limits = LIMITS[precision, io]
    failed = [
        f"step {s.step}: {s.image_db:.1f} dB, |dh| {s.code_error:.2g}"
        for s in steps
        if not (s.image_db >= limits.image_db and s.code_error <= limits.code_error)
    ]
    if failed:
        raise ExportError(
            f"the {precision} graphs differ from the networks by more than {limits.image_db:g} dB "
            f"or |dh| {limits.code_error:g} allow ({'; '.join(failed)}). No bundle was written"
            + ("; try --fp32" if precision == "fp16" else "")
        )
    return {"limits": asdict(limits), "steps": [asdict(step) for step in steps]}


def _case(networks: IkcNetworks, bundle: Bundle, lr: NDArray[np.uint8]) -> list[StepParity]:
    planes = np.ascontiguousarray(lr.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    frames = bundle.manifest.io == "uint8"
    with load_bundle(bundle, "onnxruntime", PARITY_ITERS) as upscaler:
        result = upscaler(lr[None] if frames else planes, steps=True)
    steps = []
    with torch.no_grad():
        tensor = torch.from_numpy(planes)
        code = networks.predictor(tensor)
        for step, image in enumerate(result.steps):
            sr = networks.sftmd(tensor, code)
            expected = sr.numpy()
            if frames:
                expected = np.rint(expected.transpose(0, 2, 3, 1) * 255) / 255
                image = image.astype(np.float64) / 255
            code_error = float(np.abs(code.numpy() - result.codes[step]).max())
            steps.append(StepParity(step, _psnr(image, expected), code_error))
            code = networks.corrector(sr, code)
    return steps


def _psnr(image: NDArray[Any], expected: NDArray[Any]) -> float:
    error = float(np.mean((image.astype(np.float64) - expected.astype(np.float64)) ** 2))
    if not math.isfinite(error):
        return -math.inf
    return min(150.0, -10 * math.log10(max(error, 1e-30)))
