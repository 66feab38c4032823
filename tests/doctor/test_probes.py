from __future__ import annotations

import base64
import sys
from pathlib import Path

import onnx
import pytest

import ikc_deploy
from ikc_deploy.doctor import probes
from ikc_deploy.doctor.probe_child import MODEL
from ikc_deploy.doctor.probes import (
    probe_backend,
    probe_openvino,
    probe_openvino_device,
    probe_provider,
    probe_providers,
)
from ikc_deploy.runtime.backends.cpu_backends import CPU_BACKEND_VARIABLE


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On busy cores even a healthy provider may take longer than a user should wait."""
    monkeypatch.setattr(probes, "PROBE_SECONDS", 300.0)


def child_that(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the doctor's child processes be a shell script."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_the_model_in_the_probe_is_what_its_comment_says() -> None:
    model = onnx.load_from_string(base64.b64decode(MODEL))
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ("Add", ["x", "x"], ["y"])


def test_the_cpu_provider_really_loads_and_an_unknown_one_does_not() -> None:
    assert probe_provider("CPUExecutionProvider").loads
    unknown = probe_provider("NoSuchExecutionProvider")
    assert not unknown.loads and unknown.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            'echo "EP Error: fell back"; echo \'["CPUExecutionProvider"]\'\n'
            'echo "load library /x/cuda.so with error: libcublas.so.13: no such file" >&2',
            "libcublas.so.13: no such file",
        ),
        (
            'echo "E CUDA failure 100: no CUDA-capable device ; GPU=0 ; hostname=h" >&2; exit 1',
            "no CUDA-capable device",
        ),
        ("kill -SEGV $$", "was killed by signal 11"),
        ("exec sleep 60", "no answer within"),
        ("exit 3", "it printed no reason"),
    ],
    ids=["falls back", "no device", "crashes", "hangs", "is silent"],
)
def test_a_driver_that_misbehaves_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    child_that(tmp_path, body, monkeypatch)
    if "sleep" in body:
        monkeypatch.setattr(probes, "PROBE_SECONDS", 0.2)
    provider = probe_provider("CUDAExecutionProvider")
    assert not provider.loads
    assert reason in provider.reason and "hostname" not in provider.reason


def test_a_broken_onnx_runtime_is_a_problem_with_a_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_that(tmp_path, "echo 'ImportError: no libonnxruntime' >&2; exit 1", monkeypatch)
    providers, (problem,) = probe_providers()
    assert providers == ()
    assert "no libonnxruntime" in problem and "pip install" in problem


def test_openvinos_cpu_really_computes_and_an_unknown_device_does_not() -> None:
    devices, problems = probe_openvino()
    assert problems == ()
    cpu = next(device for device in devices if device.name == "CPU")
    assert cpu.loads and cpu.product and "FP32" in cpu.precisions
    unknown = probe_openvino_device("XPU")
    assert not unknown.loads and unknown.reason and unknown.precisions == ()


def test_a_broken_openvino_is_a_problem_with_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_that(tmp_path, "echo 'ImportError: no libopenvino' >&2; exit 1", monkeypatch)
    devices, (problem,) = probe_openvino()
    assert devices == ()
    assert "no libopenvino" in problem and "pip install" in problem


def test_the_backend_of_auto_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor says what `load` does, with the reasons for what it passed over."""
    monkeypatch.setenv(CPU_BACKEND_VARIABLE, "")
    found, problems = probe_backend()
    assert problems == () and found is not None
    with ikc_deploy.load() as upscaler:
        assert (found.name, found.device) == (upscaler.backend.name, upscaler.backend.device)
    assert found.passed[0] == ("tensorrt", "the bundle has no engine for it")
    monkeypatch.setenv(CPU_BACKEND_VARIABLE, "none")
    found, (problem,) = probe_backend()
    assert found is None and f"invalid {CPU_BACKEND_VARIABLE} 'none'" in problem
