from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ikc_deploy import Bundle, BundleError
from ikc_deploy.bundle.bundle_writer import changed_bundle, check_bundle_folder, new_bundle
from ikc_deploy.errors import OutputError
from tests.half import half_bundle, write_engine
from tests.sealing import seal
from tests.test_files import state


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return half_bundle(tmp_path / "out" / "half")


def copy_into(bundle: Bundle, folder: Path) -> None:
    shutil.copytree(bundle.path, folder, dirs_exist_ok=True)


def test_a_bundle_takes_the_place_of_nothing_of_an_empty_folder_and_of_a_bundle(
    bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (bundle.path / "sftmd.onnx").write_bytes(b"damaged")
    whole = half_bundle(tmp_path / "whole")
    for place in (tmp_path / "new", tmp_path / "empty", bundle.path):
        with new_bundle(place) as folder:
            copy_into(whole, folder)
        assert Bundle.open(place).files == whole.files
    assert sorted(path.name for path in bundle.path.parent.iterdir()) == [".half.lock", "half"]


@pytest.mark.parametrize(
    "stranger", ["notes.txt", ".env", "engines/a/notes.txt", "engines/mine/big.plan", "sub/"]
)
def test_a_bundle_with_anything_added_is_neither_replaced_nor_changed(
    bundle: Bundle, stranger: str
) -> None:
    write_engine(bundle, "a")
    place = bundle.path / stranger
    if stranger.endswith("/"):
        place.mkdir()
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in bundle.path.rglob("*")}
    with pytest.raises(OutputError, match="not part of a bundle"), new_bundle(bundle.path):
        pass
    with pytest.raises(OutputError, match="not part of a bundle"), changed_bundle(bundle.path):
        pass
    assert {path: path.stat().st_mtime_ns for path in bundle.path.rglob("*")} == before
    assert [path.name for path in bundle.path.parent.iterdir()] == ["half"]


@pytest.mark.parametrize("manifest", ["{}", "[1]", "", '{"name": "a web page"}', '{"schema": 1}'])
def test_another_manifest_makes_no_bundle_of_a_folder(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text(manifest)
    before = state(tmp_path)
    with pytest.raises(OutputError, match=r"is not a bundle and not empty: 'manifest\.json'"):
        check_bundle_folder(tmp_path / "site")
    assert state(tmp_path) == before


def test_a_change_keeps_what_was_listed(bundle: Bundle) -> None:
    write_engine(bundle, "a")
    with changed_bundle(bundle.path) as (now, folder):
        assert not (folder / "manifest.json").exists()
        (folder / "more").write_text("new")
        assert not (bundle.path / "more").exists()
        seal(folder, replace(now.manifest, name="other"))
    changed = Bundle.open(bundle.path)
    assert changed.manifest.name == "other"
    assert set(changed.files) == {*now.files, "more"}


def test_a_change_that_is_not_sealed_or_not_of_a_bundle_changes_nothing(
    bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError), changed_bundle(bundle.path):
        raise RuntimeError
    assert Bundle.open(bundle.path).files == bundle.files
    with pytest.raises(BundleError, match="is not a bundle"), changed_bundle(tmp_path / "none"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_whoever_opens_a_bundle_that_was_aside_when_its_writer_was_killed_brings_it_back(
    bundle: Bundle,
) -> None:
    bundle.path.rename(bundle.path.with_name(".half.ikc-old"))
    bundle.path.with_name(".half.ikc-new").mkdir()
    assert Bundle.open(bundle.path).files == bundle.files
    assert sorted(path.name for path in bundle.path.parent.iterdir()) == [".half.lock", "half"]


def test_two_writers_at_once_leave_one_whole_bundle(bundle: Bundle) -> None:
    program = """
import sys
from dataclasses import replace
from ikc_deploy.bundle.manifest import write_manifest
from ikc_deploy.bundle.bundle_writer import changed_bundle
from ikc_deploy.bundle.measurements import Verification
for number in range(10):
    with changed_bundle(sys.argv[1]) as (now, folder):
        verified = now.manifest.verified | {
            f"{sys.argv[2]}{number}": Verification({}, (64, 64), {}, [], True)
        }
        write_manifest(folder, replace(now.manifest, verified=verified), now.files)
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(bundle.path), name])
        for name in ("a", "b")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    expected = {f"{name}{number}" for name in ("a", "b") for number in range(10)}
    assert set(Bundle.open(bundle.path).manifest.verified) == expected
    assert sorted(path.name for path in bundle.path.parent.iterdir()) == [".half.lock", "half"]
