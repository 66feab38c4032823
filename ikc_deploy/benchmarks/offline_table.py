"""All methods on one image under one degradation, side by side: a row of docs/offline.md's table.

    python -m tools.measure_offline_table --degradation median --json offline-median.json

The degradations are those of `ikc-eval --degradation`: no method is told which one it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ikc_deploy.benchmarks.degraded_crop import DegradedCrop, Image
from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.bundle.manifest import DEFAULT_ITERS
from ikc_deploy.errors import InputError
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.imaging.degrade import upscale_bicubic
from ikc_deploy.imaging.metrics import psnr_y, ssim_y
from ikc_deploy.offline.methods import METHODS
from ikc_deploy.runtime.upscaler import load_bundle


@dataclass(frozen=True)
class OfflineTablePlan:
    """One degraded crop, and who upscales it."""

    case: DegradedCrop
    methods: Mapping[str, Mapping[str, Any]]
    """Offline methods by name, and settings that are not their defaults."""
    weights: str = "x2-lite"
    """Of IKC."""
    threads: int = 1

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InputError("--threads must be at least 1")


@dataclass(frozen=True)
class OfflineTableRow:
    """One method's image."""

    method: str
    given: dict[str, Any]
    """Settings that are not the method's defaults."""
    iterations: int | None
    psnr_y: float
    ssim_y: float
    seconds: float
    """By the clock on the wall, loading included."""


def measure(
    plan: OfflineTablePlan,
    keep: Callable[[dict[str, Any]], None],
    show: Callable[[str, Image], None] = lambda *_: None,
    earlier: Mapping[str, Any] | None = None,
) -> None:
    """All methods; `keep` gets what there is after each, `show` every image under its name.

    Rows of an `earlier` report of the same crop and machine are taken over, for methods that have
    the same settings.
    """
    torch.set_num_threads(plan.threads)
    scale = plan.case.scale
    hr, lr = plan.case.pair()
    show("HR", hr)
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "plan": plan.case.described() | {"weights": plan.weights, "threads": plan.threads},
        "rows": [],
    }
    done: dict[str, Any] = {}
    if earlier is not None and _circumstances(earlier) == _circumstances(report):
        done = {row["method"]: row for row in earlier["rows"]}
    for name, iterations, upscale in _candidates(plan):
        given = dict(plan.methods.get(name, {}))
        if name in done and done[name]["given"] == given:
            report["rows"].append(done[name])
            continue
        started = time.perf_counter()
        image = upscale(lr)
        seconds = time.perf_counter() - started
        scores = psnr_y(image, hr, scale), ssim_y(image, hr, scale)
        report["rows"].append(asdict(OfflineTableRow(name, given, iterations, *scores, seconds)))
        show(name, image)
        keep(report)


def _circumstances(report: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What rows of one report have in common; how busy the machine was may differ."""
    machine = {name: value for name, value in report["machine"].items() if name != "load"}
    return report["plan"], machine


def _candidates(
    plan: OfflineTablePlan,
) -> Iterator[tuple[str, int | None, Callable[[Image], Image]]]:
    yield "bicubic", None, lambda lr: upscale_bicubic(lr, plan.case.scale)
    yield "ikc", DEFAULT_ITERS, lambda lr: _by_ikc(plan, lr)
    for name, given in plan.methods.items():
        method = METHODS[name]
        settings = method.settings(seed=plan.case.seed, **given)
        fit = method.load().fit

        def upscale(lr: Image, settings: Any = settings, fit: Any = fit) -> Image:
            return fit(lr, plan.case.scale, settings).image

        yield name, settings.iterations, upscale


def _by_ikc(plan: OfflineTablePlan, lr: Image) -> Image:
    bundle = default_bundle(plan.weights)
    with load_bundle(bundle, "onnxruntime", DEFAULT_ITERS, plan.threads) as upscaler:
        image: Image = upscaler(lr).image
        return image
