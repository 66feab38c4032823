from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ikc_deploy import Bundle, BundleError, EngineError
from ikc_deploy.bundle.engine_choice import Host, choose_engine, find_engine, incompatibility
from ikc_deploy.bundle.engine_store import (
    SCHEMA,
    Profile,
    Shape,
    copy_engines,
    read_engines,
    this_platform,
)
from ikc_deploy.loops import IKC
from tests.half import half_bundle, write_engine
from tests.sealing import seal

RTX = Host("tensorrt-rtx", "1.7.1", "8.9")
TRT = Host("tensorrt", "11.4.0", "9.0", platform="linux-x86_64")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return half_bundle(tmp_path / "bundle")


def test_an_engine_comes_back_as_it_was_written(bundle: Bundle) -> None:
    (engine,) = read_engines(write_engine(bundle, "a", workspace_mib=7))
    assert engine.record.profiles == (Profile((1, 64, 64), (1, 256, 256), (1, 540, 960)),)
    assert engine.record.compute_capabilities == ("8.6", "8.9")
    assert engine.record.workspace_mib == 7
    assert engine.plan("sftmd") == b"a sftmd"
    assert engine.plan_bytes("sftmd") == len(b"a sftmd")
    assert find_engine(engine.bundle, RTX, (1, 540, 960)) == (engine, 0)


@pytest.mark.parametrize(
    ("changes", "host", "shape", "sentence"),
    [
        ({}, TRT, None, "it is for tensorrt-rtx, not for tensorrt"),
        ({}, replace(RTX, version=None), None, "tensorrt-rtx is not installed here"),
        ({}, replace(RTX, version=None, problem="it broke"), None, "it broke"),
        (
            {},
            replace(RTX, version="1.8"),
            None,
            "tensorrt-rtx 1.7.1 built it, and 1.8 is installed",
        ),
        ({}, replace(RTX, compute_capability=None), None, "there is no GPU here"),
        (
            {},
            replace(RTX, compute_capability="9.0"),
            None,
            "for compute capability 8.6, 8.9, and the GPU here has 9.0",
        ),
        ({}, RTX, (1, 541, 960), "takes LR frames of 1x64x64 to 1x540x960 (batch, height, width)"),
        ({}, RTX, (2, 256, 256), "not 2x256x256"),
        (
            {"graphs": dict.fromkeys(IKC.graphs, "0" * 64)},
            RTX,
            None,
            "built from other graphs than the bundle holds",
        ),
        (
            {
                "variant": "tensorrt",
                "version": "11.4.0",
                "platform": "linux-aarch64",
                "compute_capabilities": ("9.0",),
            },
            TRT,
            None,
            "it was built on linux-aarch64, and this is linux-x86_64",
        ),
    ],
)
def test_every_refusal_is_a_sentence_of_its_own(
    bundle: Bundle, changes: dict[str, Any], host: Host, shape: Shape | None, sentence: str
) -> None:
    opened = write_engine(bundle, "a", **changes)
    (engine,) = read_engines(opened)
    assert sentence in incompatibility(engine, host, shape)
    mend = re.escape(f"ikc-export --bundle '{bundle.path}' --engine {host.variant}")
    with pytest.raises(EngineError, match=rf"\(a: .*{re.escape(sentence)}.*{mend}"):
        find_engine(opened, host, shape)


def test_rtx_plans_are_portable_between_systems(bundle: Bundle) -> None:
    (engine,) = read_engines(write_engine(bundle, "a", platform="win32-amd64"))
    assert this_platform() != "win32-amd64"
    assert incompatibility(engine, RTX) == ""


def test_a_bundle_without_engines_says_how_to_build_one(bundle: Bundle) -> None:
    assert read_engines(bundle) == ()
    with pytest.raises(EngineError, match=r"has no tensorrt engine .*; build one with: ikc-export"):
        find_engine(bundle, TRT)


def test_the_engine_tuned_for_the_nearest_size_is_chosen(bundle: Bundle) -> None:
    small = Profile((1, 16, 16), (1, 64, 64), (1, 600, 960))
    crops = Profile((4, 64, 64), (4, 128, 128), (16, 256, 256))
    write_engine(bundle, "a")
    opened = write_engine(bundle, "b", profiles=(crops, small), compute_capabilities=("8.9",))
    names = {}
    for shape in ((1, 64, 64), (1, 300, 300), (1, 580, 960), (8, 128, 128), None):
        choice = choose_engine(opened, RTX, shape)
        assert choice.engine is not None and len(choice.others) == 1
        names[shape] = choice.engine.record.fingerprint, choice.profile
    assert names == {
        (1, 64, 64): ("b", 1),
        (1, 300, 300): ("a", 0),
        (1, 580, 960): ("b", 1),
        (8, 128, 128): ("b", 0),
        None: ("b", 0),
    }
    assert choose_engine(opened, RTX, None).others[0][1] == "it fits as well, and b fits better"


@pytest.mark.parametrize("name", ["sftmd.plan", "engine.json"])
def test_a_corrupt_engine_is_refused_with_its_bundle(bundle: Bundle, name: str) -> None:
    write_engine(bundle, "a")
    path = bundle.path / "engines" / "a" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}' was altered: its checksum differs"):
        Bundle.open(bundle.path)


def test_a_plan_is_verified_again_when_it_is_read(bundle: Bundle) -> None:
    (engine,) = read_engines(write_engine(bundle, "a"))
    (engine.path / "sftmd.plan").write_bytes(b"a SFTMD")
    assert engine.plan("predictor") == b"a predictor"
    with pytest.raises(BundleError, match=r"sftmd\.plan' was altered.*build the engine again"):
        engine.plan("sftmd")
    (engine.path / "sftmd.plan").unlink()
    with pytest.raises(BundleError, match=r"sftmd\.plan' cannot be read"):
        engine.plan("sftmd")


def test_what_the_manifest_does_not_list_is_no_engine(bundle: Bundle) -> None:
    write_engine(bundle, "a")
    shutil.copytree(bundle.path / "engines" / "a", bundle.path / "engines" / "b")
    opened = Bundle.open(bundle.path)
    assert [engine.record.fingerprint for engine in read_engines(opened)] == ["a"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": SCHEMA + 1}, "has schema 2, and 1 is read here"),
        ({"profiles": [{"min": [1, 8, 8]}]}, "is damaged"),
        ({"unheard": 1}, "is damaged"),
        ({"fingerprint": "b"}, "not the engine that its record describes"),
        ({"graphs": {}}, "not the engine that its record describes"),
    ],
)
def test_an_engine_of_another_make_is_refused(
    bundle: Bundle, change: dict[str, Any], sentence: str
) -> None:
    write_engine(bundle, "a")
    path = bundle.path / "engines" / "a" / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    seal(bundle.path, bundle.manifest)
    with pytest.raises(BundleError, match=rf"{sentence}.*build the engine again"):
        read_engines(Bundle.open(bundle.path))


def test_engines_move_to_a_new_export_of_the_same_graphs_only(
    bundle: Bundle, tmp_path: Path
) -> None:
    write_engine(bundle, "a")
    old = write_engine(bundle, "b", graphs=dict.fromkeys(IKC.graphs, "0" * 64))
    same = half_bundle(tmp_path / "same")
    assert copy_engines(old, same.path) == ({"a"}, {"b"})
    seal(same.path, same.manifest)
    (engine,) = read_engines(Bundle.open(same.path))
    assert engine.record.fingerprint == "a" and engine.plan("sftmd") == b"a sftmd"
    other = half_bundle(tmp_path / "other", {"levels = {255}": "levels = {254}"})
    assert copy_engines(old, other.path) == (set(), {"a", "b"})
    assert not (other.path / "engines").exists()
