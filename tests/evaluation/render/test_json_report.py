from __future__ import annotations

import json
from typing import Any

import pytest

from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.render.json_report import to_dict
from ikc_deploy.evaluation.summary import summarise
from tests.evaluation.recorded import records, report


def values(gaussian: bool = True) -> dict[str, Any]:
    found = to_dict(report(gaussian, Degradation(10, 60, seed=4)), summarise(records(gaussian)))
    return dict(json.loads(json.dumps(found, allow_nan=False)))


def test_the_object_says_what_was_measured_with_what() -> None:
    found = values()
    assert (found["protocol"], found["scale"], found["weights"]) == ("gaussians", 4, "paper")
    assert found["estimate"] == "full"
    assert (found["noise"], found["jpeg"], found["seed"]) == (10, 60, 4)
    assert found["kernels_file"] is found["kernels_sha256"] is None
    assert set(found["tools"]) >= {"ikc-deploy", "numpy", "pillow", "scikit-image"}


def test_means_and_intervals_stand_under_their_dataset_and_blur() -> None:
    found = values()["datasets"]
    assert list(found) == ["Set5", "One"]
    five, one = found.values()
    assert (five["images"], one["images"]) == (3, 1)
    assert [step["step"] for step in one["steps"]] == [0, 1, 2]
    assert one["steps"][2] == {
        "step": 2,
        "psnr_y": pytest.approx(24.7),
        "psnr_y_95": None,
        "ssim_y": pytest.approx(0.8),
        "ssim_y_95": None,
        "sigma_mae": pytest.approx(0.3),
        "sigma_mae_95": None,
        "kernel_psnr": pytest.approx(42),
        "kernel_psnr_95": None,
    }
    assert (
        set(one["bicubic"])
        == set(one["true_kernel"])
        == {
            "psnr_y",
            "psnr_y_95",
            "ssim_y",
            "ssim_y_95",
        }
    )
    low, high = five["bicubic"]["psnr_y_95"]
    assert low < five["bicubic"]["psnr_y"] < high
    assert [(blur["name"], blur["sigma"]) for blur in one["blurs"]] == [
        ("sigma 1.8", 1.8),
        ("sigma 2.6", 2.6),
    ]
    assert one["blurs"][1]["true_kernel"]["psnr_y"] == pytest.approx(25)


def test_what_is_not_known_is_null() -> None:
    one = values(gaussian=False)["datasets"]["One"]
    assert one["true_kernel"] is one["steps"][0]["sigma_mae"] is one["blurs"][0]["sigma"] is None
