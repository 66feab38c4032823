from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from ikc_deploy import Bundle
from ikc_deploy.bundle.engine_store import Profile
from ikc_deploy.cli.ikc_inspect import main
from ikc_deploy.weights import DEFAULT_WEIGHTS, shipped_weights
from tests.cli.running import assert_one_clear_line, invoke
from tests.half import half_bundle, write_engine
from tests.machines import nvidia_smi


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle with engines of both variants, on a machine with a GPU where only `a` fits."""
    nvidia_smi(tmp_path, "echo 'GPU, 580.0, 8192, 8.9'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    module = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX")
    bundle = half_bundle(tmp_path / "bundle")
    profiles = (Profile((1, 16, 16), (1, 32, 32), (1, 64, 64)),)
    write_engine(bundle, "a", version=module.__version__, profiles=profiles)
    write_engine(bundle, "b", version="1.0.0", profiles=profiles)
    return write_engine(bundle, "c", variant="tensorrt", version="10.0.0", profiles=profiles)


def test_it_shows_everything_and_judges_every_engine(bundle: Bundle) -> None:
    done = invoke(main, bundle.path)
    assert done.exit_code == 0, done.stderr
    for words in (
        "half, x4, fp16, uint8",
        "(random)",
        "against torch float32",
        "engine a: tensorrt-rtx",
        "1x16x16 to 1x64x64, tuned for 1x32x32",
        "used here",
        "tensorrt-rtx 1.0.0 built it, and ",
        "17 HALF",
        "all verified",
    ):
        assert words in done.stdout


def test_json_says_the_same(bundle: Bundle) -> None:
    facts = json.loads(invoke(main, bundle.path, "--json", "--shape", "64x64").stdout)
    used = {engine["fingerprint"]: engine["used_here"] for engine in facts["engines"]}
    assert used == {"a": True, "b": False, "c": False}
    reasons = {engine["fingerprint"]: engine["reason"] for engine in facts["engines"]}
    assert reasons["a"] == "" and reasons["b"] and reasons["c"]
    assert facts["graphs"]["sftmd"]["sha256"] == bundle.files["sftmd.onnx"].sha256
    assert facts["engines"][0]["plan_bytes"]["sftmd"] == len("a sftmd")


def test_a_frame_that_no_engine_takes_is_told(bundle: Bundle) -> None:
    done = invoke(main, bundle.path, "--shape", "65x64")
    assert "takes LR frames of 1x16x16 to 1x64x64" in done.stdout
    assert "no engine is used here: ONNX Runtime runs the graphs" in done.stdout


def test_a_corrupt_plan_is_one_line(bundle: Bundle) -> None:
    (bundle.path / "engines" / "a" / "sftmd.plan").write_bytes(b"A SFTMD")
    assert_one_clear_line(invoke(main, bundle.path), "sftmd.plan' was altered")


def test_a_bundle_without_engines_says_so(tmp_path: Path) -> None:
    done = invoke(main, half_bundle(tmp_path / "bundle").path)
    assert "engines: none" in done.stdout


def test_what_is_no_bundle_or_shape_is_one_line(tmp_path: Path) -> None:
    assert_one_clear_line(invoke(main, tmp_path), "is not a bundle")
    assert_one_clear_line(invoke(main, tmp_path, "--shape", "big"), "HEIGHTxWIDTH")


def test_shipped_weights_are_listed_with_their_cards() -> None:
    result = invoke(main, "--weights", "--json")
    assert result.exit_code == 0, result.output
    entries = {entry["name"]: entry for entry in json.loads(result.stdout)}
    assert set(entries) == set(shipped_weights())
    assert [name for name, entry in entries.items() if entry["default"]] == [DEFAULT_WEIGHTS]
    for name, path in shipped_weights().items():
        assert entries[name]["bytes"] == path.stat().st_size
        assert entries[name]["knows"] and entries[name]["purpose"]
        assert re.search(r": \d\d\.\d\d dB at step \d+ \(bicubic", entries[name]["figures"])
    lines = invoke(main, "--weights").stdout
    assert all(f"{name} (" in lines for name in entries)


def test_a_bundle_or_the_list_is_required(tmp_path: Path) -> None:
    assert_one_clear_line(invoke(main), "BUNDLE", "--weights")
    assert_one_clear_line(invoke(main, tmp_path, "--weights"), "leave out BUNDLE")


def test_the_bundle_of_shipped_weights_is_shown_by_name() -> None:
    result = invoke(main, "--weights", "x4-lite")
    assert result.exit_code == 0, result.output
    assert "x4-lite" in result.stdout and "all verified" in result.stdout
    assert_one_clear_line(invoke(main, "--weights", "abacus"), "abacus")
    assert_one_clear_line(invoke(main, "folder", "--weights", "x4-lite"), "not both")


def test_graphs_from_a_template_have_no_empty_tables() -> None:
    done = invoke(main, "--weights", "x2-lite")
    assert done.exit_code == 0, done.stderr
    assert "not compared with torch here" in done.stdout
    assert "rounding" not in done.stdout
