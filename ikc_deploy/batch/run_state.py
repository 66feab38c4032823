"""Record of the finished outputs in a folder, so that a second run writes only missing outputs.

    OUT/.ikc-batch/outputs.jsonl  a line for each output: its name and fingerprint
    OUT/.ikc-batch/lock
    OUT/.ikc-batch/...            chunks of clips that are not finished

An output is finished if it exists and its line has the fingerprint of this run. A line is written
after its output, so an output that a killed run did not complete is written again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from ikc_deploy.errors import InputError

FOLDER: Final = ".ikc-batch"

_STATE_FILE: Final = "outputs.jsonl"
_LOCK_FILE: Final = "lock"
_SCRATCH: Final = "scratch"


def fingerprint(source: Path, run: Mapping[str, Any]) -> str:
    """Return the fingerprint of an output: a hash of its source file and its settings.

    Args:
        source: The source file, of which path, size and modification time count.
        run: The settings (JSON values).

    Returns:
        16 hexadecimal digits.

    Raises:
        OSError: The file does not exist.
    """
    status = source.stat()
    file = {"path": str(source), "bytes": status.st_size, "modified": status.st_mtime_ns}
    content = json.dumps({**run, "source": file}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class BatchRunState:
    """The record of one output folder, used by one process at a time; see `open_run_state`.

    Args:
        out: The output folder.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER
        self._out = out
        self._file = self.folder / _STATE_FILE
        self._made = dict(_read(self._file))

    def has(self, target: Path, made_from: str) -> bool:
        """Return whether `target` exists and was recorded with the fingerprint `made_from`."""
        return self._made.get(target.name) == made_from and target.is_file()

    def add(self, target: Path, made_from: str) -> None:
        """Record that `target` is finished, with its fingerprint `made_from`."""
        self._made[target.name] = made_from
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(json.dumps({"target": target.name, "from": made_from}) + "\n")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield an empty folder, and delete it at the end of the block."""
        folder = self.folder.absolute() / _SCRATCH
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_run_state(out: Path) -> Iterator[BatchRunState]:
    """Open and lock the record of the output folder `out`, which is created if it is missing.

    Raises:
        InputError: Another run writes to the folder.
    """
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / FOLDER / _LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"another run is writing '{out}'; wait for it, or stop it") from None
    try:
        yield BatchRunState(out)
    finally:
        lock.release()


def _read(file: Path) -> Iterator[tuple[str, str]]:
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            yield entry["target"], entry["from"]
        except (ValueError, KeyError, TypeError):
            continue  # A run was killed while it wrote this line; its output is written again.
