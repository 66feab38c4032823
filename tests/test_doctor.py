from __future__ import annotations

import base64
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import onnx
import pytest

import ikc_deploy
from ikc_deploy import doctor
from ikc_deploy.doctor import (
    BASE,
    COMMANDS,
    Command,
    Gap,
    Package,
    check_command,
    merge_requirements,
    probe_backend,
    probe_openvino,
    probe_openvino_device,
    probe_provider,
    probe_providers,
    required_packages,
)
from ikc_deploy.runtime.backends.cpu_backends import CPU_BACKEND_VARIABLE


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On busy cores even a healthy provider may take longer than a user should wait."""
    monkeypatch.setattr(doctor, "_PROBE_SECONDS", 300.0)


@pytest.fixture
def setup(repository: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read(repository / "setup.cfg")
    return parser


def child_that(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the doctor's child processes be a shell script."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def package(name: str, *extras: str, version: str | None = None) -> Package:
    return Package(name, version, extras, f"{name}>=1")


def test_every_command_and_extra_is_one_of_the_projects(setup: ConfigParser) -> None:
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    names = {line.partition("=")[0].strip() for line in scripts if line}
    assert set(COMMANDS) == names - {"ikc-doctor"}
    extras = {extra for needs in COMMANDS.values() for extra, _ in needs}
    assert extras <= set(setup["options.extras_require"]) | {BASE}


def test_requirements_are_read_off_the_metadata() -> None:
    found = merge_requirements(
        [
            "numpy<3,>=1.26",
            'torch>=2.6; extra == "export"',
            "torch>=2.6 ; extra == 'training'",
            'no_such_thing[all]<2,>=1.1; python_version > "3" and extra == "rtx"',
            'ikc-deploy[export]; extra == "dev"',
            'elsewhere>=1; sys_platform == "none" or platform_machine == "none"',
            'elsewhere>=1; (sys_platform == "none") and extra == "rtx"',
        ]
    )
    shown = [(item.name, item.extras, item.requirement) for item in found]
    assert shown == [
        ("no_such_thing", ("rtx",), "no_such_thing[all]<2,>=1.1"),
        ("numpy", (BASE,), "numpy<3,>=1.26"),
        ("torch", ("export", "training"), "torch>=2.6"),
    ]
    assert found[0].version is None and found[1].version is not None


def test_this_installation_names_every_extras_packages() -> None:
    names = {item.name for item in required_packages()}
    assert {"numpy", "torch", "av", "tensorrt", "tensorrt_rtx", "pycuda", "cuda-bindings"} <= names


def test_a_command_is_ready_unless_all_of_it_lacks_something() -> None:
    needs = ((BASE, ""), ("export", ""), ("video", "video files"))
    av, torch, pillow = package("av", "video"), package("torch", "export"), package("pillow", BASE)
    whole = [package("numpy", BASE, version="2.0")]
    assert check_command("c", needs, whole) == Command("c", True, ())
    video = Gap("video files", ("av",), "pip install 'ikc-deploy[video]'")
    assert check_command("c", needs, [*whole, av]) == Command("c", True, (video,))
    export = Gap("", ("torch",), "pip install 'ikc-deploy[export]'")
    assert check_command("c", needs, [torch, av]) == Command("c", False, (export, video))
    base = Gap("", ("pillow",), "pip install 'pillow>=1'")
    assert check_command("c", needs, [pillow]) == Command("c", False, (base,))


def test_the_model_in_the_probe_is_what_its_comment_says() -> None:
    model = onnx.load_from_string(base64.b64decode(doctor._MODEL))
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
        monkeypatch.setattr(doctor, "_PROBE_SECONDS", 0.2)
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


def test_examining_imports_no_device_module() -> None:
    heavy = "torch onnxruntime openvino onnx tensorrt tensorrt_rtx polygraphy pycuda cuda av"
    code = (
        "import sys; from ikc_deploy import doctor; doctor._PROBE_SECONDS = 300.0\n"
        "report = doctor.examine()\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])\n"
        "print(report.usable, [p.name for p in report.providers if p.loads])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, found = done.stdout.splitlines()
    assert imported == "[]"
    assert found.startswith("True") and "CPUExecutionProvider" in found
