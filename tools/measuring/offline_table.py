"""A comparison of all methods on one image under one degradation: a row of docs/offline.md's table.

    python -m tools.measure_offline_table --degradation median --json offline-median.json

The degradations are those of `ikc-eval --degradation`; they are unknown to the methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.errors import InputError
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.imaging.metrics import psnr_y, ssim_y
from ikc_deploy.imaging.resize import upscale_bicubic
from ikc_deploy.loops import IKC
from ikc_deploy.offline.methods import METHODS, Method
from ikc_deploy.offline.optimize import optimize
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.upscaler import load_bundle
from tools.measuring.degraded_crop import DegradedCrop, Image


@dataclass(frozen=True)
class OfflineTablePlan:
    """The plan of a comparison: one degraded crop, and the methods that upscale it.

    Raises:
        InputError: A value is out of range.
    """

    case: DegradedCrop
    """Crop to upscale."""
    methods: Mapping[str, Mapping[str, Any]]
    """Settings that differ from the defaults, by the name of the offline method."""
    weights: str = "x2-lite"
    """Spec of the weights of IKC."""
    threads: int = 1
    """Number of CPU cores to use."""

    def __post_init__(self) -> None:
        """Require at least one thread."""
        if self.threads < 1:
            raise InputError("--threads must be at least 1")


@dataclass(frozen=True)
class OfflineTableRow:
    """The scores of one method."""

    method: str
    """Name of the method."""
    given: dict[str, Any]
    """Settings that differ from the method's defaults."""
    iterations: int | None
    """Number of iterations; None for a method without any."""
    psnr_y: float
    """PSNR of luma in dB."""
    ssim_y: float
    """SSIM of luma."""
    seconds: float
    """Wall-clock time, loading included."""


def measure(
    plan: OfflineTablePlan,
    keep: Callable[[dict[str, Any]], None],
    show: Callable[[str, Image], None] = lambda *_: None,
    earlier: Mapping[str, Any] | None = None,
) -> None:
    """Measure all methods.

    Args:
        plan: Plan of the comparison.
        keep: Called with the report so far after each method.
        show: Called with the name and the image of the HR crop and of each method.
        earlier: Report of an earlier run; the rows of methods with the same settings are reused if
            crop and machine are the same.
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
    """Return what all rows of a report share; the load of the machine is ignored."""
    machine = {name: value for name, value in report["machine"].items() if name != "load"}
    return report["plan"], machine


def _candidates(
    plan: OfflineTablePlan,
) -> Iterator[tuple[str, int | None, Callable[[Image], Image]]]:
    yield "bicubic", None, lambda lr: upscale_bicubic(lr, plan.case.scale)
    yield "ikc", IKC.iters, lambda lr: _by_ikc(plan, lr)
    for name, given in plan.methods.items():
        method = METHODS[name]
        settings = method.settings(seed=plan.case.seed, **given)

        def upscale(lr: Image, method: Method = method, settings: Any = settings) -> Image:
            return optimize(method.fit(lr, plan.case.scale, settings)).image

        yield name, settings.iterations, upscale


def _by_ikc(plan: OfflineTablePlan, lr: Image) -> Image:
    bundle = default_bundle(plan.weights)
    options = UpscalerOptions(iters=IKC.iters, backend="onnxruntime", threads=plan.threads)
    with load_bundle(bundle, options) as upscaler:
        image: Image = upscaler(lr).image
        return image
