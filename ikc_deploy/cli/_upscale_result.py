"""ikc-upscale: the line or the JSON of one upscaled image."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

from ikc_deploy.cli._ui import note, result
from ikc_deploy.imaging.file_upscaling import Upscaled

_TOLD_NOISE: Final = 1.0
"""Noise in 8-bit levels below which a line does not mention it."""
_TOLD_QUALITY: Final = 97.0
"""JPEG quality from which on a line does not mention it."""


def show_image(done: Upscaled, as_json: bool) -> None:
    """Print the line or the JSON of an image, and what its format cannot hold."""
    if done.not_kept:
        note(f"not kept in {done.task.target}: {', '.join(done.not_kept)}")
    result(json.dumps(_facts(done)) if as_json else _line(done))


def _line(done: Upscaled) -> str:
    (lr_height, lr_width), (sr_height, sr_width) = done.lr, done.sr
    parts = [f"{done.task.target}: {lr_width}x{lr_height} -> {sr_width}x{sr_height}"]
    if done.sigma is not None:
        parts.append(f"sigma {done.sigma:.2f}")
    if done.ellipse is not None:
        ellipse = done.ellipse
        parts.append(f"ellipse {ellipse.long:.2f} x {ellipse.short:.2f} at {ellipse.angle:.0f}°")
    if done.noise is not None and done.noise >= _TOLD_NOISE:
        parts.append(f"noise {done.noise:.0f}")
    if done.jpeg_quality is not None and done.jpeg_quality < _TOLD_QUALITY:
        parts.append(f"JPEG quality {done.jpeg_quality:.0f}")
    parts.append(f"{done.timings['total']:.0f} ms")
    if done.bits > 8:
        parts.append(f"{done.bits} bits -> 8")
    return ", ".join(parts)


def _facts(done: Upscaled) -> dict[str, object]:
    ellipse = None if done.ellipse is None else asdict(done.ellipse)
    return {
        "input": str(done.task.source),
        "output": str(done.task.target),
        "lr": done.lr,
        "sr": done.sr,
        "sigma": None if done.sigma is None else round(done.sigma, 4),
        "ellipse": None if ellipse is None else {key: round(ellipse[key], 4) for key in ellipse},
        "noise": None if done.noise is None else round(done.noise, 2),
        "jpeg_quality": None if done.jpeg_quality is None else round(done.jpeg_quality, 1),
        "not_kept": done.not_kept,
        "timings_ms": {name: round(value, 3) for name, value in done.timings.items()},
    }
