from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ikc_deploy import Bundle, BundleError
from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import MANIFEST_FILE, SCHEMA, copy_verified, write_manifest


@pytest.fixture
def copied(small_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle.path, tmp_path / "bundle"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest as someone would who also mends its digest."""
    path = folder / MANIFEST_FILE
    values = json.loads(path.read_text())
    change(values)
    sealed = {key: value for key, value in values.items() if key != "manifest_sha256"}
    digest = hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(sealed | {"manifest_sha256": digest}))


def test_an_intact_copy_opens_anywhere(copied: Path, small_bundle: Bundle) -> None:
    opened = Bundle.open(copied)
    assert opened.manifest == small_bundle.manifest
    assert opened.basis.id == opened.manifest.basis_id


@pytest.mark.parametrize("file", ["predictor.onnx", "sftmd.onnx", "corrector.onnx", "basis.npz"])
def test_one_flipped_byte_is_refused(copied: Path, file: str) -> None:
    content = bytearray((copied / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / file).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{file}' was altered: its checksum differs"):
        Bundle.open(copied)


def test_every_flipped_byte_of_the_manifest_is_refused(copied: Path) -> None:
    path = copied / MANIFEST_FILE
    content, before = path.read_bytes(), Bundle.open(copied)
    for position in range(0, len(content), 97):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        try:
            opened = Bundle.open(copied)
        except BundleError:
            continue
        # White space and the last digit of a float may change, if all values stay the same.
        assert opened.manifest == before.manifest and opened.files == before.files


def test_a_truncated_graph_is_refused_with_its_sizes(copied: Path) -> None:
    graph = copied / "sftmd.onnx"
    size = graph.stat().st_size
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"has {size - 1} bytes and should have {size}"):
        Bundle.open(copied)


def test_a_missing_file_is_named(copied: Path) -> None:
    (copied / "corrector.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks 'corrector\.onnx'"):
        Bundle.open(copied)


def test_a_newer_schema_asks_for_an_upgrade(copied: Path) -> None:
    rewrite(copied, lambda values: values.update(schema=SCHEMA + 1))
    with pytest.raises(BundleError, match=r"newer than .* upgrade with: pip install"):
        Bundle.open(copied)


@pytest.mark.parametrize("outside", ["../outside.onnx", "/etc/hostname", "a/../../outside.onnx"])
def test_a_path_outside_the_folder_is_refused(copied: Path, outside: str) -> None:
    (copied.parent / "outside.onnx").write_bytes(b"x")
    rewrite(copied, lambda v: v["files"].update({outside: {"bytes": 1, "sha256": "0"}}))
    with pytest.raises(BundleError, match="lies outside the bundle"):
        Bundle.open(copied)


def test_a_link_out_of_the_folder_is_refused(copied: Path) -> None:
    target = copied.parent / "elsewhere.onnx"
    (copied / "sftmd.onnx").rename(target)
    (copied / "sftmd.onnx").symlink_to(target)
    with pytest.raises(BundleError, match="lies outside the bundle"):
        Bundle.open(copied)


def test_a_manifest_that_lists_too_little_is_refused(copied: Path) -> None:
    rewrite(copied, lambda values: values["files"].pop("sftmd.onnx"))
    with pytest.raises(BundleError, match=r"does not list sftmd\.onnx"):
        Bundle.open(copied)


def test_another_basis_is_refused(copied: Path) -> None:
    rewrite(copied, lambda values: values["bundle"].update(basis_id="0" * 64))
    with pytest.raises(BundleError, match="another kernel basis"):
        Bundle.open(copied)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle.*ikc-export"):
        Bundle.open(tmp_path)


def test_a_seal_lists_what_its_writer_vouches_for(copied: Path, small_bundle: Bundle) -> None:
    (copied / "forged.onnx").write_bytes(b"x")
    (copied / "new.bin").write_bytes(b"abc")
    # Altered since it was verified: the old checksum goes on, and the bundle does not open.
    files = {**small_bundle.files, **record_files(copied, ["new.bin"])}
    write_manifest(copied, small_bundle.manifest, files)
    opened = Bundle.open(copied)
    assert set(opened.files) == {*small_bundle.files, "new.bin"}
    assert opened.unlisted() == ["forged.onnx"]
    with pytest.raises(BundleError, match=r"does not list 'forged\.onnx'"):
        opened.read("forged.onnx")
    (copied / "sftmd.onnx").write_bytes(b"altered")
    write_manifest(copied, small_bundle.manifest, files)
    with pytest.raises(BundleError, match=r"sftmd\.onnx' has 7 bytes"):
        Bundle.open(copied)


def test_a_copy_takes_verified_bytes_alone(copied: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(copied)
    (copied / "basis.npz").write_bytes(b"altered")
    with pytest.raises(BundleError, match=r"basis\.npz' has 7 bytes"):
        copy_verified(bundle, bundle.files, tmp_path / "other")


def test_a_manifest_that_could_not_be_opened_is_not_written(copied: Path) -> None:
    bundle = Bundle.open(copied)
    with pytest.raises(BundleError, match=r"cannot be written: bundle\.tools"):
        write_manifest(copied, replace(bundle.manifest, tools={"a": "\x1b"}), bundle.files)
    with pytest.raises(BundleError, match="cannot be written"):
        endless = {"loss": float("nan")}
        write_manifest(copied, replace(bundle.manifest, training=endless), bundle.files)
    assert Bundle.open(copied).manifest == bundle.manifest
