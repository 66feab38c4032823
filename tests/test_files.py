from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ikc_deploy import files
from ikc_deploy.errors import InputError, OutputError
from ikc_deploy.files import (
    atomic_folder,
    atomic_path,
    check_file,
    check_folder,
    is_interrupted,
    restore,
    sha256_file,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def listed(folder: Path) -> list[str]:
    """What LIST in a folder lists, itself included."""
    if not (folder / "LIST").is_file():
        raise InputError("no list")
    return ["LIST", *(folder / "LIST").read_text().split()]


def fill(folder: Path, *entries: str, text: str = "old") -> None:
    folder.mkdir(exist_ok=True)
    for entry in entries:
        (folder / entry).parent.mkdir(parents=True, exist_ok=True)
        (folder / entry).write_text(text)
    (folder / "LIST").write_text(" ".join(entries))


def state(folder: Path) -> dict[str, str]:
    """Every entry below `folder`, hidden ones too, and what is in the files."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else ""
        for path in folder.rglob("*")
    }


# A child that writes a folder in small steps, for as long as it lives. Without exchange it does
# what it must where no system call swaps names.
WRITER = """
import sys
from pathlib import Path
from ikc_deploy import files
from tests.test_files import fill, listed
if sys.argv[2] == "renames":
    files.exchange = lambda first, second: False
target, count = Path(sys.argv[1]), 0
while True:
    with files.atomic_folder(target, listed) as folder:
        for part in range(20):
            fill(folder, *(f"{number}/file" for number in range(part + 1)), text=str(count))
    count += 1
    print(count, flush=True)
"""


def run_writer(target: Path, way: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(target), way]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


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


@pytest.mark.parametrize("swaps", [True, False])
def test_atomic_folder_replaces_the_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    target = tmp_path / "bundle"
    with atomic_folder(target, listed) as temporary:
        fill(temporary, "old.onnx", "deep/er")
        assert not target.exists()
    target.chmod(0o750)
    with atomic_folder(target, listed) as temporary:
        fill(temporary, "new.onnx")
        assert names(target) == ["LIST", "deep", "old.onnx"]
    assert names(target) == ["LIST", "new.onnx"]
    assert names(tmp_path) == ["bundle"]
    assert target.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("swaps", [True, False])
def test_atomic_folder_leaves_the_old_folder_when_the_block_raises_or_something_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    target = tmp_path / "bundle"
    fill(target, "a")
    before = state(tmp_path)
    with pytest.raises(RuntimeError, match="gate"), atomic_folder(target, listed) as temporary:
        (temporary / "half.onnx").write_text("half")
        raise RuntimeError("gate")
    assert state(tmp_path) == before
    with pytest.raises(OutputError, match="'notes'"), atomic_folder(target, listed):
        (target / "notes").write_text("mine")
    assert state(tmp_path) == before | {"bundle/notes": "mine"}


def test_what_comes_in_at_the_last_moment_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    fill(target, "a")
    exchange = files.exchange

    def late(first: Path, second: Path) -> bool:
        if not (first / "notes").exists():
            (target / "notes").write_text("mine")
        return exchange(first, second)

    monkeypatch.setattr(files, "exchange", late)
    with pytest.raises(OutputError, match="'notes'"), atomic_folder(target, listed):
        pass
    assert (target / "notes").read_text() == "mine"
    assert (target / "a").read_text() == "old"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["photo.jpg"], "'photo.jpg'"),
        ([".hidden"], "'.hidden'"),
        (["empty/"], "'empty/'"),
        (["data/1", "data/2"], "'data/'"),
        (["LIST", "a", "deep/b", "deep/other"], "'deep/other'"),
        (["LIST", "a", "deep/b", "deep/more/c"], "'deep/more/'"),
        (["LIST", "a/b", "deep/b"], "'a/'"),
        (["1", "2", "3", "4", "5", "6"], "'1', '2', '3', '4' and 2 more"),
    ],
)
def test_a_folder_with_anything_unlisted_is_refused_by_name_and_left_alone(
    tmp_path: Path, entries: list[str], words: str
) -> None:
    target = tmp_path / "out"
    for entry in entries:
        place = target / entry
        if entry.endswith("/"):
            place.mkdir(parents=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("a deep/b" if entry == "LIST" else entry)
    before = state(tmp_path)
    for refuse in (check_folder, lambda *asked: atomic_folder(*asked).__enter__()):
        with pytest.raises(OutputError) as caught:
            refuse(target, listed, "a thing")
        assert words in str(caught.value)
        assert state(tmp_path) == before


def test_links_are_followed_and_a_linked_folder_is_not_a_listed_one(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store", target_is_directory=True)
    with atomic_folder(tmp_path / "link", listed) as folder:
        fill(folder, "deep/file")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "store") == ["LIST", "deep"]
    (tmp_path / "store" / "deep").rename(tmp_path / "elsewhere")
    (tmp_path / "store" / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="'deep'"):
        check_folder(tmp_path / "link", listed)
    assert (tmp_path / "elsewhere" / "file").read_text() == "old"
    (tmp_path / "latest.txt").symlink_to("elsewhere/file")
    write_atomically(tmp_path / "latest.txt", b"new")
    assert (tmp_path / "latest.txt").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "new"


@pytest.mark.parametrize("check", [check_file, check_folder])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/proc/x", "cannot be written"),
        ("/proc/x/y/z", "cannot be written"),
        ("FILE/x", "is a file, not a folder"),
        ("FILE/x/y", "is a file, not a folder"),
        ("new/" + "n" * 300, "at most 255 bytes"),
        ("new/\N{GREEK SMALL LETTER ALPHA}" + "\N{GREEK SMALL LETTER ALPHA}" * 127, "255 bytes"),
        ("a\0b", "no NUL"),
    ],
)
def test_places_where_nothing_can_be_written_are_refused_at_once(
    tmp_path: Path, check: Callable[[Path], None], place: str, words: str
) -> None:
    (tmp_path / "FILE").write_text("mine")
    with pytest.raises(OutputError) as caught:
        check(tmp_path / place)
    assert words in str(caught.value)
    assert state(tmp_path) == {"FILE": "mine"}


def test_folders_files_and_devices_do_not_take_each_others_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for place in ("pipe", "empty"):
        with pytest.raises(OutputError, match=r"folder|regular"):
            check_file(tmp_path / place)
        with pytest.raises(OSError, match=r"folder|regular"):
            write_atomically(tmp_path / place, b"data")
    with pytest.raises(OSError, match="regular"):
        write_atomically(os.devnull, b"data")
    for place in ("file", "pipe"):
        with pytest.raises(OutputError, match="is a file"):
            check_folder(tmp_path / place)
    monkeypatch.chdir(tmp_path / "empty")
    for place in (".", "..", "/", "/proc"):
        with pytest.raises(OutputError, match=r"give a folder|mount point"):
            check_folder(place)
    check_folder(".", whole=False)
    assert names(tmp_path) == ["empty", "file", "pipe"]


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    program = """
import os, sys
from ikc_deploy.files import check_file, check_folder
from ikc_deploy.errors import OutputError
from ikc_deploy.locks import locked
if os.getuid() == 0:
    os.setuid(65534)
for refuse in (check_file, check_folder, lambda path: locked(path).__enter__()):
    for place in sys.argv[1:]:
        try:
            refuse(place)
        except OutputError as error:
            print(error)
"""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    places = [str(folder / "out"), str(folder / "new" / "out")]
    command = [sys.executable, "-c", program, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("Permission denied") == 6
    assert names(folder) == []


@pytest.mark.parametrize("length", [255, 250])
def test_the_longest_names_can_be_written(tmp_path: Path, length: int) -> None:
    name = "%03d" + "n" * (length - 8) + ".bin"
    write_atomically(tmp_path / name, b"data")
    with atomic_path(tmp_path / name) as temporary:
        assert len(temporary.name) < 20 and "%" not in temporary.name
    folder = tmp_path / "deep" / ("f" * length)
    for _ in range(2):
        with atomic_folder(folder, listed) as new:
            fill(new, "a")
    assert sorted(names(tmp_path)) == sorted([name, "deep"])
    assert names(folder.parent) == [folder.name]


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_writer_killed_at_any_moment_leaves_a_whole_folder_and_the_next_one_nothing_else(
    tmp_path: Path, way: str
) -> None:
    target, moments = tmp_path / "out", random.Random(0)
    for _ in range(3):
        writer = run_writer(target, way)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(moments.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        restore(target)
        found = state(target)
        assert len(listed(target)) == 21
        assert len({text for name, text in found.items() if name.endswith("/file")}) == 1
        with atomic_folder(target, listed) as folder:
            fill(folder, "a")
        assert names(tmp_path) == ["out"]


def test_a_kill_between_two_renames_is_put_right(tmp_path: Path) -> None:
    target = tmp_path / "out"
    fill(target, "a")
    program = """
import os, signal, sys
from pathlib import Path
from ikc_deploy import files
from tests.test_files import fill, listed
files.exchange = lambda first, second: False
rename = Path.rename
def killed(self, target):
    if self.name.endswith(".ikc-new"):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = killed
with files.atomic_folder(Path(sys.argv[1]), listed) as folder:
    fill(folder, "b")
"""
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists() and is_interrupted(target)
    restore(target)
    assert state(tmp_path) == {"out": "", "out/a": "old", "out/LIST": "a"}


def test_files_of_killed_writers_are_swept_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    program = """
import sys, time
from ikc_deploy.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "out.png")]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        names_of = [writer.stdout.readline().strip() for writer in writers if writer.stdout]
        writers[0].kill()
        writers[0].wait()
        write_atomically(tmp_path / "other.png", b"data")
        assert names(tmp_path) == sorted([names_of[1], "other.png"])
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_sha256_file_gives_the_standards_example(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-4, example for "abc".
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == expected
