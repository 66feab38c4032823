from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner, Result

from ikc_deploy.bundle.gpus import Gpu
from ikc_deploy.cli.ikc_doctor import main
from ikc_deploy.doctor.examination import DoctorReport
from ikc_deploy.doctor.probes import ChosenBackend, InferenceDevice, Provider
from ikc_deploy.doctor.required_packages import BASE, Command, Gap, Package

VIDEO = Gap("video files", ("av",), "pip install 'ikc-deploy[video]'")
REPORT = DoctorReport(
    usable=True,
    python="3.12.1",
    ikc_deploy="0.1.0",
    packages=(
        Package("av", None, ("video",), "av>=14"),
        Package("numpy", "2.0", (BASE,), "numpy>=1"),
    ),
    providers=(Provider("CUDA", False, "libcublas.so.13 [gone]"), Provider("CPU", True, "")),
    openvino=(
        InferenceDevice("CPU", True, "Xeon [6]", ("FP32", "BF16"), ""),
        InferenceDevice("GPU", False, "", (), "no driver"),
    ),
    backend=ChosenBackend("openvino", "cpu", "bf16 ([gate])", (("tensorrt", "no [engine]"),)),
    gpus=(Gpu("Orin (nvgpu)", "540.4.0", None, "8.7"),),
    no_gpu="",
    weights=("x4-lite",),
    cache="/cache",
    cached=("x4-lite-fp32",),
    commands=(Command("ikc-upscale", True, (VIDEO,)),),
    problems=("two of [them] are installed",),
)


def invoke(monkeypatch: pytest.MonkeyPatch, report: DoctorReport, *arguments: str) -> Result:
    monkeypatch.setattr("ikc_deploy.cli.ikc_doctor.examine", lambda: report)
    return CliRunner().invoke(main, arguments)


def test_the_tables_show_what_was_found_brackets_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke(monkeypatch, REPORT)
    assert result.exit_code == 0, result.output
    for words in (
        "Python 3.12.1",
        "not installed",
        "libcublas.so.13 [gone]",
        "no [engine]",
        "runs on cpu, computes in bf16 ([gate])",
        "GPU: Orin (nvgpu), shared memory, compute capability 8.7, driver 540.4.0",
        "OpenVINO CPU: Xeon [6], computes FP32, BF16",
        "OpenVINO GPU: no driver",
        "shipped weights: x4-lite",
        "for video files: needs av",
        "pip install 'ikc-deploy[video]'",
        "problem: two of [them] are installed",
    ):
        assert words in result.stdout


def test_a_machine_without_gpu_or_weights_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = replace(
        REPORT, backend=None, gpus=(), no_gpu="nvidia-smi is not installed", weights=(), cached=()
    )
    result = invoke(monkeypatch, bare)
    assert "GPU: none (nvidia-smi is not installed)" in result.stdout
    assert "shipped weights: none" in result.stdout


def test_json_is_the_whole_report(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke(monkeypatch, REPORT, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(json.dumps(asdict(REPORT)))


def test_a_machine_that_cannot_upscale_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Gap("", ("pillow",), "pip install 'pillow>=10.3'")
    broken = replace(REPORT, usable=False, commands=(Command("ikc-upscale", False, (base,)),))
    result = invoke(monkeypatch, broken)
    assert result.exit_code == 1
    assert "needs pillow" in result.stdout and "ready" not in result.stdout
