from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ikc_deploy.errors import OutputError
from ikc_deploy.locks import locked

HOLDER = """
import sys, time
from ikc_deploy.locks import locked
with locked(sys.argv[1], float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def child(target: Path, seconds: float = 60) -> subprocess.Popen[str]:
    """A process that takes the lock of `target`, says so, and holds it until it is written to."""
    command = [sys.executable, "-c", HOLDER, str(target), str(seconds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_thread_may_lock_again_and_another_waits(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def other() -> None:
        waiting.set()
        with locked(tmp_path / "new" / "bundle"):
            order.append("other")

    thread = threading.Thread(target=other)
    with locked(tmp_path / "new" / "bundle"), locked(tmp_path / "new" / "." / "bundle"):
        thread.start()
        waiting.wait()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
    assert not (tmp_path / "new" / "bundle").exists()


def test_who_waits_says_for_whom_in_one_line_and_gets_the_lock_in_the_end(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    first = child(target)
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    second = child(target)
    assert second.stderr is not None
    line = second.stderr.readline()
    assert f"process {first.pid} on '{socket.gethostname()}'" in line
    assert str(target) in line and str(tmp_path / ".bundle.lock") in line
    first.communicate("\n")
    out, err = second.communicate("\n")
    assert (out, err, second.returncode) == ("held\n", "", 0)


def test_a_lock_that_is_not_released_in_time_names_its_holder(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    holder = child(target)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    for seconds in (0, 0.2):
        with (
            pytest.raises(OutputError, match=rf"process {holder.pid} on .*wait for it"),
            locked(target, seconds),
        ):
            pass
    holder.kill()
    holder.communicate()
    # The lock of a killed process is free, whatever its file says.
    with locked(target, 0):
        said = json.loads((tmp_path / ".bundle.lock").read_text())
        assert said == {"pid": os.getpid(), "host": socket.gethostname()}
    assert (tmp_path / ".bundle.lock").read_text() == ""


@pytest.mark.parametrize(
    "place",
    ["/proc/x", "/proc/x/y", "/sys/x", "FILE/x", "FILE/x/y", "n" * 300, "/", "a\0b", "LOOP"],
)
def test_a_lock_that_cannot_be_made_is_an_error_at_once(tmp_path: Path, place: str) -> None:
    (tmp_path / "FILE").write_text("mine")
    (tmp_path / ".LOOP.lock").symlink_to(".LOOP.lock")
    with (
        pytest.raises(OutputError, match=r"cannot be|give a folder|invalid name"),
        locked(tmp_path / place),
    ):
        pass
    assert (tmp_path / "FILE").read_text() == "mine"


def test_what_the_lock_file_says_is_not_trusted(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    holder = child(target)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    for text in ("", "{", "[1]", '{"pid": "x"}', '{"pid": 1}', "[" * 4000):
        (tmp_path / ".bundle.lock").write_text(text)
        with pytest.raises(OutputError, match="another process"), locked(target, 0):
            pass
    holder.communicate("\n")
