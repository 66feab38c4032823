"""All methods on one picture under one degradation, side by side: a row of docs/offline.md's table.

    python -m ikc_deploy.cli.offline_table --degradation median --json offline-median.json

The degradations are those of `ikc-eval --degradation`: no method is told which one it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.default_bundle import default_bundle
from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import BlurSet, DegradationName
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.gaussian8 import crop_to_multiple, upscale_bicubic
from ikc_deploy.evaluation.metrics import psnr_y, ssim_y
from ikc_deploy.images import read_rgb
from ikc_deploy.offline.methods import METHODS
from ikc_deploy.runtime.upscaler import DEFAULT_ITERS, load_bundle

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Plan:
    """One HR crop, degraded once, and who upscales it."""

    image: Path
    top: int
    left: int
    side: int
    """Of the HR crop, in pixels."""
    degradation: DegradationName
    """Of a random one, the first kernel."""
    methods: Mapping[str, Mapping[str, Any]]
    """Offline methods by name, and settings that are not their defaults."""
    scale: int = 2
    weights: str = "x2-lite"
    """Of IKC."""
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if min(self.top, self.left) < 0 or min(self.side, self.threads) < 1:
            raise InputError("a crop needs a place and a size; threads, at least 1")

    def pair(self) -> tuple[Image, Image]:
        """The HR crop, and its LR image."""
        whole = read_rgb(self.image)
        hr = whole[self.top : self.top + self.side, self.left : self.left + self.side]
        if hr.shape[:2] != (self.side, self.side):
            raise InputError(f"the crop is not inside '{self.image}', {list(whole.shape[:2])}")
        hr = crop_to_multiple(hr, self.scale)
        blur = BlurSet.degradation(self.degradation, self.scale, self.seed).blurs[0]
        return hr, Degradation().shrink(blur.apply(hr), self.scale, self.image.name)


@dataclass(frozen=True)
class Row:
    """One method's picture."""

    method: str
    given: dict[str, Any]
    """Settings that are not the method's defaults."""
    iterations: int | None
    psnr_y: float
    ssim_y: float
    seconds: float
    """By the clock on the wall, loading included."""


def measure(
    plan: Plan,
    keep: Callable[[dict[str, Any]], None],
    show: Callable[[str, Image], None] = lambda *_: None,
    earlier: Mapping[str, Any] | None = None,
) -> None:
    """All methods; `keep` gets what there is after each, `show` every picture under its name.

    Rows of an `earlier` report of the same crop, method and settings are taken over.
    """
    torch.set_num_threads(plan.threads)
    hr, lr = plan.pair()
    show("HR", hr)
    case = {field: v for field, v in asdict(plan).items() if field != "methods"}
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "plan": case | {"image": plan.image.name},
        "rows": [],
    }
    same = earlier is not None and earlier["plan"] == report["plan"]
    done = {row["method"]: row for row in earlier["rows"]} if earlier and same else {}
    for name, iterations, upscale in _contestants(plan):
        given = dict(plan.methods.get(name, {}))
        if name in done and done[name]["given"] == given:
            report["rows"].append(done[name])
            continue
        started = time.perf_counter()
        image = upscale(lr)
        seconds = time.perf_counter() - started
        scores = psnr_y(image, hr, plan.scale), ssim_y(image, hr, plan.scale)
        report["rows"].append(asdict(Row(name, given, iterations, *scores, seconds)))
        show(name, image)
        keep(report)


def _contestants(plan: Plan) -> Iterator[tuple[str, int | None, Callable[[Image], Image]]]:
    yield "bicubic", None, lambda lr: upscale_bicubic(lr, plan.scale)
    yield "ikc", DEFAULT_ITERS, lambda lr: _by_ikc(plan, lr)
    for name, given in plan.methods.items():
        method = METHODS[name]
        settings = method.settings(seed=plan.seed, **given)
        fit = method.load().fit

        def upscale(lr: Image, settings: Any = settings, fit: Any = fit) -> Image:
            return fit(lr, plan.scale, settings).image

        yield name, settings.iterations, upscale


def _by_ikc(plan: Plan, lr: Image) -> Image:
    bundle = default_bundle(plan.weights)
    with load_bundle(bundle, "onnxruntime", DEFAULT_ITERS, plan.threads) as upscaler:
        image: Image = upscaler(lr).image
        return image
