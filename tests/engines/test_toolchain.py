from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ikc_deploy import EngineError
from ikc_deploy.engines.targets import Target
from ikc_deploy.engines.toolchain import (
    Toolchain,
    choose_toolchain,
    prepare_toolchain,
    this_host,
)
from tests.engines.conftest import TARGET
from tests.machines import nvidia_smi


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has, the driver's tool says that there is none."""
    gpus(tmp_path, monkeypatch)


def gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, *capabilities: str) -> None:
    lines = [f"echo 'GPU {i}, 580.0, 8192, {cc}'" for i, cc in enumerate(capabilities)]
    nvidia_smi(folder, "\n".join(lines) or "echo 'no devices were found'; exit 6")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_tensorrt_needs_the_target_gpu_and_says_so() -> None:
    with pytest.raises(EngineError, match=r"builds on the target GPU itself .*no devices were"):
        prepare_toolchain("tensorrt", replace(TARGET, compute_capabilities=("9.0",)))


def test_tensorrt_refuses_a_target_that_is_another_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(tmp_path, monkeypatch, "8.9")
    with pytest.raises(
        EngineError, match=r"for compute capability 9\.0, but the GPU here has 8\.9"
    ):
        prepare_toolchain("tensorrt", Target(("9.0",)))


def test_tensorrt_does_not_guess_between_unlike_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(tmp_path, monkeypatch, "9.0", "8.6", "9.0")
    with pytest.raises(EngineError, match=r"differ \(compute capability 8\.6, 9\.0\)"):
        prepare_toolchain("tensorrt", Target())


def test_rtx_builds_for_the_targets_gpus_in_order(rtx: Toolchain) -> None:
    target = Target(("12.0", "8.6", "8.9", "8.6"))
    found = prepare_toolchain("tensorrt-rtx", target)
    assert found.compute_capabilities == ("8.6", "8.9", "12.0")
    assert found.library is rtx.library


def test_rtx_without_a_target_builds_for_the_gpu_that_is_here(
    rtx: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=r"no GPU here to build for .*--target"):
        prepare_toolchain("tensorrt-rtx", Target())
    gpus(tmp_path, monkeypatch, "8.9")
    assert prepare_toolchain("tensorrt-rtx", Target()).compute_capabilities == ("8.9",)
    assert this_host("tensorrt-rtx").compute_capability == "8.9"


def test_an_unknown_compute_capability_is_refused_with_the_known_ones(rtx: Toolchain) -> None:
    with pytest.raises(EngineError, match=r"does not support .* 9\.0, 99\.9; it builds for .*8\.9"):
        prepare_toolchain("tensorrt-rtx", Target(("99.9", "8.9", "9.0")))


def test_auto_takes_what_works_and_says_why_not_the_other(rtx: Toolchain) -> None:
    chosen, passed = choose_toolchain("auto", TARGET)
    assert chosen.name == "tensorrt-rtx"
    assert list(passed) == ["tensorrt"] and "no GPU here" in passed["tensorrt"]
    assert "8.6, 12.0" in str(chosen) and rtx.library.version in str(chosen)


def test_auto_with_nothing_that_works_gives_every_reason(rtx: Toolchain) -> None:
    with pytest.raises(EngineError, match=r"on the target GPU itself.*does not support .*99\.9"):
        choose_toolchain("auto", Target(("99.9",)))
