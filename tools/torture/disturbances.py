"""What is done to the commands while they run, and what has to hold afterwards.

Each disturbance runs one command on an output that may exist already, and checks that nothing is
lost, that the next run succeeds with the right content, and that it leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.torture.commands import Ended, Fault, WritingCommand, check_end, picture_digest, run
from tools.torture.material import Material
from tools.torture.mutations import mutated_bytes

_POLL_SECONDS: Final = 0.002


@dataclass(frozen=True)
class Reference:
    """What a command does without a disturbance."""

    command: WritingCommand
    """The command."""
    material: Material
    """Its inputs."""
    outputs: tuple[Path, ...]
    """Its output for each variant of the material; only the first if it does not replace any."""
    contents: tuple[str, ...]
    """The contents of `outputs`."""
    seconds: float
    """Duration of an undisturbed run."""

    @property
    def patience(self) -> float:
        """Seconds after which a run hangs."""
        return 120 + 20 * self.seconds


@dataclass(frozen=True)
class OutputPlace:
    """A folder with the output of one trial."""

    reference: Reference
    folder: Path
    old: str | None
    """Content of the output before the trial; None if there was none."""

    @property
    def out(self) -> Path:
        """Path of the output."""
        return self.folder / self.reference.command.output

    @property
    def new(self) -> str:
        """Content that the command writes."""
        return self.reference.contents[0]

    def line(self) -> list[str]:
        """Return the command line of the trial."""
        return self.reference.command.line(self.reference.material, 0, self.out)

    def check_whole(self) -> str:
        """Return what the output is: "old", "new" or "partial"; raise `Fault` if data is lost."""
        command = self.reference.command
        if command.name == "train":
            return "partial"  # The state of a run is judged by what --resume makes of it.
        if command.name == "batch":
            return self._check_batch()
        found = command.content(self.out)
        if found == self.new:
            return "new"
        if found == self.old:
            return "old"
        raise Fault(f"{command.name}: the output is neither old nor new: {found}")

    def _check_batch(self) -> str:
        """Check that every picture of a batch is the old or the new one."""
        if not self.out.exists():
            return "old"
        whole = [json.loads(text) for text in self.reference.contents]
        for path in self.out.iterdir():
            if path.name.startswith("."):
                continue
            try:
                found = picture_digest(path)
            except Exception as error:
                raise Fault(f"batch: '{path.name}' is damaged: {error!r}") from error
            if found not in [contents.get(path.name) for contents in whole]:
                raise Fault(f"batch: '{path.name}' is neither old nor new")
        return "partial"

    def check_repeated(self) -> None:
        """Run the command again; raise `Fault` unless it completes and leaves nothing behind."""
        line, patience = self.line(), self.reference.patience
        if self.reference.command.resumes:
            ended = run([*line, "--resume"], patience)
            check_end(ended)
            if ended.code == 2:  # There was nothing to resume yet.
                ended = run(line, patience)
        else:
            ended = run(line, patience)
        check_end(ended, (0,))
        found = self.reference.command.content(self.out)
        if found != self.new:
            raise Fault(f"the repeated run made something else: {found}, not {self.new}")
        self.check_clean()

    def check_clean(self) -> None:
        """Raise `Fault` if anything but the output and its lock lies in the folder."""
        name = self.reference.command.output
        left = {path.name for path in self.folder.iterdir()} - {name, f".{name}.lock"}
        if self.out.is_dir():
            left |= {path.name for path in self.out.rglob(".ikc-*")}
        if left:
            raise Fault(f"left behind: {', '.join(sorted(left))}")


Disturbance = Callable[[OutputPlace, random.Random], str]
"""Disturbs one run and returns what came of it; raises `Fault` if a promise is broken."""


def killed(place: OutputPlace, source: random.Random) -> str:
    """Kill the run with SIGKILL, half of the time soon after it began to write."""
    process = _start(place.line())
    after = source.uniform(0, 1.1 * place.reference.seconds)
    if source.random() < 0.5:
        _wait_for_change(place.folder, process)
        after = source.choice((0.0, 0.01, 0.1, 0.5, 2.0)) * source.random()
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    if process.returncode != -signal.SIGKILL:
        check_end(Ended(process.returncode, errors.decode(errors="replace")), (0,))
    outcome = place.check_whole()
    place.check_repeated()
    return f"killed, {outcome}" if process.returncode else "completed"


def on_a_full_disk(place: OutputPlace, source: random.Random) -> str:
    """Run on a small tmpfs in a mount namespace; what lies there is copied out afterwards."""
    size = _bytes_in(place.folder) + source.choice((0, 10, 50, 200, 1000)) * source.randint(1, 2048)
    script = (
        f"mount -t tmpfs -o size={4096 * -(-max(size, 4096) // 4096)} tmpfs DISK && "
        "cp -a SAFE/. DISK && COMMAND; code=$?; cp -a DISK/. RESULT; exit $code"
    )
    return _in_namespace(place, script)


def on_a_read_only_disk(place: OutputPlace, source: random.Random) -> str:  # noqa: ARG001 - as all
    """Run in a folder that is mounted without the right to write."""
    script = (
        "cp -a SAFE/. DISK && mount --bind DISK DISK && mount -o remount,bind,ro DISK && "
        "COMMAND; code=$?; cp -a DISK/. RESULT; exit $code"
    )
    outcome = _in_namespace(place, script)
    if outcome == "completed":
        raise Fault("the command succeeded in a folder that cannot be written")
    return outcome


def in_a_vanishing_folder(place: OutputPlace, source: random.Random) -> str:
    """Delete the folder of the output, with everything in it, during the run."""
    process = _start(place.line())
    try:
        process.wait(source.uniform(0.2, 1.0) * place.reference.seconds)
    except subprocess.TimeoutExpired:
        gone = place.folder.with_name("gone")
        place.folder.rename(gone)
        shutil.rmtree(gone)
    ended = _end_of(process, place.reference.patience)
    check_end(ended)
    place.folder.mkdir(exist_ok=True)
    place.check_repeated()
    return "completed" if ended.code == 0 else "refused"


def twice_at_once(place: OutputPlace, source: random.Random) -> str:
    """Run the command twice at the same time on one output."""
    first = _start(place.line())
    time.sleep(source.random() ** 2 * place.reference.seconds)
    second = _start(place.line())
    ends = [_end_of(process, place.reference.patience) for process in (first, second)]
    for ended in ends:
        check_end(ended)
    if all(ended.code for ended in ends):
        raise Fault(f"neither of two runs succeeded: {ends[0].errors} {ends[1].errors}")
    found = place.reference.command.content(place.out)
    if found != place.new:
        raise Fault(f"two runs made {found}, not {place.new}")
    place.check_clean()
    return "one refused" if any(ended.code for ended in ends) else "both completed"


def on_damaged_input(place: OutputPlace, source: random.Random) -> str:
    """Run on inputs of which some are damaged; the output stays as it is if that is refused."""
    material = Material(place.folder.with_name("inputs"))
    shutil.copytree(place.reference.material.folder, material.folder)
    command = place.reference.command
    inputs = [each for each in command.options(material, 0) if isinstance(each, Path)]
    chosen = source.choice(inputs)
    files = [path for path in (chosen, *sorted(chosen.rglob("*"))) if path.is_file()]
    for path in source.sample(files, source.randint(1, len(files))):
        path.write_bytes(mutated_bytes(path.read_bytes(), source))
    ended = run(command.line(material, 0, place.out), place.reference.patience)
    check_end(ended)
    if command.name in ("train", "batch"):
        return "completed" if ended.code == 0 else "refused"  # Either may leave a part.
    found = command.content(place.out)
    if ended.code == 0 and found is None:
        raise Fault("exit code 0 without an output")
    if ended.code == 2 and found != place.old:
        raise Fault(f"the refused run changed the output: {found}")
    place.check_clean()
    return "completed" if ended.code == 0 else "refused"


DISTURBANCES: Final[dict[str, Disturbance]] = {
    "kill": killed,
    "full disk": on_a_full_disk,
    "read-only folder": on_a_read_only_disk,
    "vanishing folder": in_a_vanishing_folder,
    "two writers": twice_at_once,
    "damaged input": on_damaged_input,
}
"""All disturbances by name."""


def namespaces_work() -> bool:
    """Return whether this user may mount file systems in a namespace; two disturbances need it."""
    probe = "d=$(mktemp -d) && mount -t tmpfs tmpfs $d; code=$?; umount $d; rmdir $d; exit $code"
    try:
        done = subprocess.run(["unshare", "-Urm", "sh", "-c", probe], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def new_place(reference: Reference, folder: Path, source: random.Random) -> OutputPlace:
    """Create the folder of a trial; half of the time with an output of an earlier run."""
    folder.mkdir(parents=True)
    if len(reference.outputs) < 2 or source.random() < 0.5:
        return OutputPlace(reference, folder, None)
    old = reference.outputs[1]
    if old.is_dir():
        shutil.copytree(old, folder / old.name)
    else:
        shutil.copy(old, folder)
    return OutputPlace(reference, folder, reference.contents[1])


def measured(command: WritingCommand, material: Material, folder: Path) -> Reference:
    """Run a command undisturbed for every variant, and return what it does.

    Raises:
        Fault: It fails, or leaves something behind.
    """
    outputs: list[Path] = []
    seconds = 0.0
    for variant in (1, 0) if command.replaces else (0,):
        place = folder / str(variant)
        place.mkdir(parents=True)
        outputs.insert(0, place / command.output)
        begin = time.monotonic()
        check_end(run(command.line(material, variant, outputs[0]), 600), (0,))
        seconds = time.monotonic() - begin
    contents = tuple(str(command.content(path)) for path in outputs)
    return Reference(command, material, tuple(outputs), contents, seconds)


def _in_namespace(place: OutputPlace, script: str) -> str:
    """Run a script around the command, with the place as SAFE; its RESULT becomes the place."""
    disk, result = (place.folder.with_name(name) for name in ("disk", "result"))
    for folder in (disk, result):
        folder.mkdir()
    words = {
        "COMMAND": shlex.join(
            place.reference.command.line(
                place.reference.material, 0, disk / place.reference.command.output
            )
        ),
        "SAFE": shlex.quote(str(place.folder)),
        "DISK": shlex.quote(str(disk)),
        "RESULT": shlex.quote(str(result)),
    }
    for word, text in words.items():
        script = script.replace(word, text)
    ended = run(["unshare", "-Urm", "sh", "-c", script], place.reference.patience)
    check_end(ended)
    shutil.rmtree(place.folder)
    result.rename(place.folder)
    outcome = place.check_whole()
    if ended.code == 0 and outcome == "old":
        raise Fault("exit code 0, but the output is the old one")
    place.check_repeated()
    return "completed" if ended.code == 0 else f"refused, {outcome}"


def _start(line: list[str]) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return subprocess.Popen(
        line, stdin=null, stdout=null, stderr=subprocess.PIPE, start_new_session=True
    )


def _end_of(process: subprocess.Popen[bytes], seconds: float) -> Ended:
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Fault(f"did not end within {seconds:.0f} seconds") from error
    return Ended(process.returncode, errors.decode(errors="replace"))


def _wait_for_change(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until something but a lock appears below a folder, or the process ends."""
    before = _names_below(folder)
    while process.poll() is None:
        if any(not name.endswith(".lock") for name in _names_below(folder) - before):
            return
        time.sleep(_POLL_SECONDS)


def _names_below(folder: Path) -> set[str]:
    # os.walk, as entries may vanish at any moment.
    return {name for _, folders, files in os.walk(folder) for name in (*folders, *files)}


def _bytes_in(folder: Path) -> int:
    return sum(4096 + path.stat().st_size for path in folder.rglob("*"))
