"""The gate before a graph is computed in fewer bits than float32.

Both precisions run the loop on a photograph under three blurs. The images must agree, and the
kernel codes of the candidate, given to the SR network in float32, must lead to images that are as
close to the original. The worst of the three decides, as one picture may be lucky.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.errors import BackendError
from ikc_deploy.kernels.conventions import degrade_fkp
from ikc_deploy.runtime.backends.base import Backend
from ikc_deploy.runtime.backends.openvino_devices import Arithmetic, OpenVinoDevice
from ikc_deploy.runtime.frames import LAYOUTS, frame_shape
from ikc_deploy.runtime.nonblind import fkp_in_place
from ikc_deploy.runtime.session import Session

MIN_FRAME_DB: Final = 45.0
"""Minimum PSNR in dB of the images against those of float32."""
MAX_CODE_LOSS_DB: Final = 0.02
"""Maximum loss of PSNR against the original by the candidate's kernel codes, in dB."""

SAMPLE: Final = Path(__file__).with_name("gate_sample.npy")
"""RGB photograph `[128,128,3]` uint8: rows 150 to 277 and columns 420 to 547 of
samples/kodim23.png."""

_BLURS: Final = (0.3, 0.55, 0.8)
"""Sigmas of the blurs, as shares of the sigma range."""
_BORDER: Final = 4
"""Width in LR pixels of the border that is not compared; the blur wraps around there."""


@dataclass(frozen=True)
class GateResult:
    """The difference of a precision from float32, the worst over the images."""

    frame_db: float
    """PSNR in dB of the images at the end of the loop, at most 150."""
    code_loss_db: float
    """Loss of PSNR against the original in dB, by the codes alone."""

    @property
    def passed(self) -> bool:
        """Whether both limits hold; not if a value is NaN."""
        return self.frame_db >= MIN_FRAME_DB and self.code_loss_db <= MAX_CODE_LOSS_DB

    def __str__(self) -> str:
        """Return the two figures with their limits, for messages."""
        return (
            f"images at {self.frame_db:.1f} dB from float32 (minimum {MIN_FRAME_DB:g}), codes cost "
            f"{self.code_loss_db:.3f} dB (maximum {MAX_CODE_LOSS_DB:g})"
        )

    def encode(self) -> bytes:
        """Return the result as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> GateResult:
        """Return the result of `encode`.

        Raises:
            ValueError: `data` is something else.
        """
        try:
            values = json.loads(data)
            return cls(float(values["frame_db"]), float(values["code_loss_db"]))
        except (KeyError, TypeError) as error:
            raise ValueError("not a result of the gate") from error


def candidates(bundle: Bundle, device: OpenVinoDevice) -> tuple[Arithmetic, ...]:
    """Return the precisions of 16 bits that a device computes natively, best first.

    On a CPU, float16 is a candidate only for graphs that were exported in it, since others may
    exceed its range.
    """
    wanted: tuple[Arithmetic, ...] = ("bf16",)
    if device.name != "CPU":
        wanted = ("f16", "bf16")
    elif bundle.manifest.precision == "fp16":
        wanted = ("bf16", "f16")
    return tuple(precision for precision in wanted if device.computes(precision))


def choose_precision(
    offered: Sequence[Arithmetic], gate: Callable[[Arithmetic], GateResult]
) -> tuple[Arithmetic, str]:
    """Return the first precision that passes the gate, else float32.

    Args:
        offered: The candidates, best first.
        gate: Measures a candidate, or raises `BackendError` if it does not run.

    Returns:
        The precision, and the reason for it.
    """
    said = []
    for precision in offered:
        try:
            result = gate(precision)
        except BackendError as error:
            said.append(f"{precision}: {error}")
            continue
        said.append(f"{precision}: {result}")
        if result.passed:
            return precision, said[-1]
    return "f32", "; ".join(said) or "the device computes no 16-bit precision natively"


def measure(bundle: Bundle, reference: Backend, candidate: Backend) -> GateResult:
    """Compare a backend with one in float32 on the sample photograph.

    Args:
        bundle: The bundle that both run.
        reference: The backend in float32.
        candidate: The other backend.

    Returns:
        The result; a value is NaN if the candidate's images or codes are not finite.

    Raises:
        BackendError: A backend failed.
    """
    scale, io = bundle.manifest.scale, bundle.manifest.io
    hr, lr = _pictures(bundle)
    iters = max(1, bundle.manifest.recommended_iters)
    sessions = [
        Session(backend, bundle, frame_shape(lr, io), iters) for backend in (reference, candidate)
    ]
    images, codes = [], []
    for backend, session in zip((reference, candidate), sessions, strict=True):
        session.upload(lr)
        session.blind().run()
        images.append(_inside(backend.download(session.sr), scale))
        codes.append(backend.download(session.codes[iters]))
    if not np.isfinite(codes[1]).all():
        return GateResult(math.nan, math.nan)
    own = sessions[0]
    reference.upload(codes[1], own.codes[0])
    own.image(0).run()
    moved = _inside(reference.download(own.sr), scale)
    wanted = _inside(hr, scale)
    return GateResult(
        min(map(psnr, images[1], images[0])),
        max(
            psnr(good, wanted) - psnr(bad, wanted)
            for good, bad in zip(images[0], moved, strict=True)
        ),
    )


@cache
def _sample() -> NDArray[np.uint8]:
    photograph: NDArray[np.uint8] = np.load(SAMPLE)
    return photograph


def _pictures(bundle: Bundle) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return the original `[3,H,W]` in [0,1], and LR frames in the layout of the bundle."""
    scale = bundle.manifest.scale
    side = len(_sample()) // scale * scale
    hr = _sample()[:side, :side]
    low, high = bundle.basis.sigma_range
    sigmas = [low + share * (high - low) for share in _BLURS]
    kernels = bundle.basis.decode(bundle.basis.code_of_sigma(sigmas))
    blurred = [degrade_fkp(hr, fkp_in_place(kernel, scale), scale) for kernel in kernels]
    lr = np.clip(np.rint(np.stack(blurred)), 0, 255).astype(np.uint8)
    original = hr.transpose(2, 0, 1) / 255
    layout = LAYOUTS[bundle.manifest.io]
    frames = np.stack([layout.from_channels_last(frame) for frame in lr]).astype(layout.dtype)
    return original, frames if layout.white == 255 else frames / np.float32(255)


def _inside(images: NDArray[Any], scale: int) -> NDArray[np.float64]:
    """Return images `[...,H,W]` without their border."""
    cut = slice(scale * _BORDER, -scale * _BORDER)
    return images[..., cut, cut].astype(np.float64)
