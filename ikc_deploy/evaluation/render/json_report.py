"""A measurement as one JSON object: protocol, weights, means and tool versions."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final

from ikc_deploy.evaluation.protocol import EvaluationReport
from ikc_deploy.evaluation.summary import DatasetSummary, Mean, SummaryRow
from ikc_deploy.version import __version__

_DISTRIBUTIONS: Final = ("numpy", "onnxruntime-gpu", "onnxruntime", "pillow", "scikit-image")


def to_dict(report: EvaluationReport, summaries: Sequence[DatasetSummary]) -> dict[str, Any]:
    """Return a measurement as JSON values: finite numbers, text, None, lists and dictionaries."""
    manifest, protocol = report.manifest, report.protocol
    return {
        "protocol": protocol.blurs.kind,
        "kernels_file": protocol.blurs.file,
        "kernels_sha256": protocol.blurs.sha256,
        "noise": protocol.degradation.noise,
        "jpeg": protocol.degradation.jpeg,
        "seed": protocol.degradation.seed,
        "estimate": report.estimate,
        "self_ensemble": report.self_ensemble,
        "scale": manifest.scale,
        "weights": manifest.name,
        "weights_sha256": manifest.weights_sha256,
        "precision": manifest.precision,
        "datasets": {summary.name: _dataset(summary) for summary in summaries},
        "tools": _tools(),
    }


def _dataset(summary: DatasetSummary) -> dict[str, Any]:
    return {
        "images": summary.images,
        **_rows(summary.rows),
        "blurs": [
            {"name": blur.name, "sigma": blur.sigma, **_rows(blur.rows)} for blur in summary.blurs
        ],
    }


def _rows(rows: Sequence[SummaryRow]) -> dict[str, Any]:
    named = {row.method: _values(row) for row in rows if row.step is None}
    return {
        "bicubic": named["bicubic"],
        "true_kernel": named.get("true kernel"),
        "steps": [{"step": row.step} | _values(row) for row in rows if row.step is not None],
    }


def _values(row: SummaryRow) -> dict[str, Any]:
    """Return each mean under its name, and its interval under `NAME_95`."""
    means: dict[str, Mean | None] = {"psnr_y": row.psnr_y, "ssim_y": row.ssim_y}
    if row.method == "blind":
        means |= {"sigma_mae": row.sigma_mae, "kernel_psnr": row.kernel_psnr}
    values: dict[str, Any] = {}
    for name, mean in means.items():
        values[name] = None if mean is None else mean.value
        values[f"{name}_95"] = None if mean is None else mean.interval
    return values


def _tools() -> dict[str, str]:
    tools = {"ikc-deploy": __version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            tools[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return tools
