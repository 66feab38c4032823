from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy.files import atomic_folder, atomic_path, sha256_file, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_atomic_path_replaces_the_file_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "frame.png"
    write_atomically(target, b"old")
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
        assert (temporary.parent, temporary.suffix) == (target.parent, ".png")
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["frame.png"]


def test_atomic_path_leaves_the_old_file_when_the_block_raises(tmp_path: Path) -> None:
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["weights.bin"]


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "cache.bin"
    with atomic_path(target) as first:
        first.write_bytes(b"first")
        with atomic_path(target) as second:
            second.write_bytes(b"second")
        assert target.read_bytes() == b"second"
        assert first.read_bytes() == b"first"
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["cache.bin"]


def test_atomic_folder_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with atomic_folder(target) as temporary:
        (temporary / "old.onnx").write_text("old")
        assert not target.exists()
    with atomic_folder(target) as temporary:
        (temporary / "engines").mkdir()
        (temporary / "new.onnx").write_text("new")
        assert names(target) == ["old.onnx"]
    assert names(target) == ["engines", "new.onnx"]
    assert names(tmp_path) == ["bundle"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_atomic_folder_leaves_the_old_folder_when_the_block_raises(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "manifest.json").write_text("{}")
    with pytest.raises(RuntimeError, match="gate"), atomic_folder(target) as temporary:
        (temporary / "half.onnx").write_text("half")
        raise RuntimeError("gate")
    assert names(target) == ["manifest.json"]
    assert names(tmp_path) == ["bundle"]


def test_sha256_file_gives_the_standards_example(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-4, example for "abc".
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == expected
