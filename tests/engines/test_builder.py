from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ikc_deploy import Bundle, BundleError, EngineError
from ikc_deploy.bundle.engine_store import Profile
from ikc_deploy.engines.builder import build_plan
from ikc_deploy.engines.targets import parse_shapes
from ikc_deploy.engines.toolchain import Toolchain
from ikc_deploy.loops import IKC
from tests.engines.conftest import TARGET
from tests.half import half_bundle
from tests.sealing import seal


def build(bundle: Bundle, rtx: Toolchain, graph: str = "predictor") -> bytes:
    return build_plan(bundle, graph, rtx, TARGET, lambda *_: None).data


def malformed(rtx: Toolchain, plan: bytes) -> bool:
    """What TensorRT's runtime says of a plan's header, which it reads without a GPU, too."""
    trt = rtx.library.module
    runtime = trt.Runtime(rtx.library.logger)
    _, diagnostics = runtime.get_engine_validity(plan[: runtime.engine_header_size])
    return bool(diagnostics & int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE))


def test_a_plan_is_what_tensorrts_runtime_takes_for_one(half: Bundle, rtx: Toolchain) -> None:
    for graph in IKC.graphs:
        assert not malformed(rtx, build(half, rtx, graph))
    assert malformed(rtx, b"no plan" * 1000)


def test_more_profiles_and_gpus_fit_in_a_plan(half: Bundle, rtx: Toolchain) -> None:
    two = replace(TARGET, profiles=(*TARGET.profiles, parse_shapes("4x16x16:4x16x16:8x16x16")))
    for toolchain, target in ((rtx, two), (replace(rtx, compute_capabilities=("8.9",)), TARGET)):
        plan = build_plan(half, "sftmd", toolchain, target, lambda *_: None)
        assert not malformed(rtx, plan.data)


def test_the_build_reports_its_phases_to_their_ends(half: Bundle, rtx: Toolchain) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def report(graph: str, phase: str, done: int, total: int) -> None:
        assert graph == "corrector"
        seen.setdefault(phase, []).append((done, total))

    build_plan(half, "corrector", rtx, TARGET, report)
    assert len(seen) > 3
    assert all(0 <= done <= total for steps in seen.values() for done, total in steps)
    done, total = seen["Building engine"][-1]
    assert done == total > 1


INTERRUPTED = """
import signal, sys
from ikc_deploy import Bundle
from ikc_deploy.engines.builder import build_plan
from ikc_deploy.engines.toolchain import prepare_toolchain
from tests.engines.conftest import TARGET

half, rtx = Bundle.open(sys.argv[1]), prepare_toolchain("tensorrt-rtx", TARGET)
before = signal.getsignal(signal.SIGINT)
calls = []

def press(*call):
    calls.append(call)
    signal.raise_signal(signal.SIGINT)

try:
    build_plan(half, "predictor", rtx, TARGET, press)
except KeyboardInterrupt:
    cancelled = len(calls)
    build_plan(half, "predictor", rtx, TARGET, lambda *call: calls.append(call))
    print(len(calls) > 3 * cancelled, signal.getsignal(signal.SIGINT) is before)
"""


def test_ctrl_c_cancels_the_build(half: Bundle, rtx: Toolchain, repository: Path) -> None:
    """In a process of its own: a signal that comes late would end a worker of pytest-xdist."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(half.path)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr


def test_an_error_in_the_progress_bar_cancels_the_build(half: Bundle, rtx: Toolchain) -> None:
    def broken(*_: object) -> None:
        raise OSError("no terminal")

    with pytest.raises(OSError, match="no terminal"):
        build_plan(half, "predictor", rtx, TARGET, broken)
    assert build(half, rtx)


def test_a_graph_that_the_parser_refuses_carries_tensorrts_words(
    tmp_path: Path, rtx: Toolchain
) -> None:
    bundle = half_bundle(tmp_path / "b", full=("corrector",))
    with pytest.raises(EngineError) as caught:
        build(bundle, rtx, "corrector")
    message = str(caught.value)
    assert "cannot parse" in message and "node 'node_features' (Conv)" in message
    assert "must be of same type" in message
    assert "\n" not in message and "cudaError" not in message


def test_an_operator_that_does_not_exist_is_named(tmp_path: Path, rtx: Toolchain) -> None:
    bundle = half_bundle(tmp_path / "b", {"DepthToSpace <blocksize = 4>": "Unheard"})
    with pytest.raises(EngineError, match=r"node 'node_sr' \(Unheard\)"):
        build(bundle, rtx, "sftmd")


def test_a_file_that_is_no_onnx_is_refused(half: Bundle, rtx: Toolchain) -> None:
    half.graph("predictor").write_bytes(b"not a graph")
    seal(half.path, half.manifest)
    with pytest.raises(BundleError, match="is not an ONNX model"):
        build(Bundle.open(half.path), rtx)
    # What looks like one from outside: a model whose graph is text.
    half.graph("predictor").write_bytes(b"\x3a\x04text")
    seal(half.path, half.manifest)
    with pytest.raises((BundleError, EngineError), match=r"predictor\.onnx"):
        build(Bundle.open(half.path), rtx)


def test_too_little_workspace_says_what_to_raise(half: Bundle, rtx: Toolchain) -> None:
    small = replace(TARGET, workspace_mib=1, profiles=(parse_shapes("64x64:512x512:2000x2000"),))
    with pytest.raises(EngineError, match=r"workspace.*raise workspace_mib in the target"):
        build_plan(half, "predictor", rtx, small, lambda *_: None)


def test_a_profile_that_tensorrt_refuses_carries_its_words(half: Bundle, rtx: Toolchain) -> None:
    profile = Profile((1, 16, 16), (1, 32, 32), (1, 48, 64))
    # What `Profile` itself would refuse: TensorRT's own check is the second line.
    object.__setattr__(profile, "max", (1, 24, 64))
    with pytest.raises(EngineError, match=r"cannot use the profile .*MIN<=OPT<=MAX"):
        build_plan(half, "predictor", rtx, replace(TARGET, profiles=(profile,)), lambda *_: None)
