"""The campaign: trials of all kinds in turn until the time is over, and a report of them."""

from __future__ import annotations

import functools
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import count
from pathlib import Path
from typing import Any, Final

from ikc_deploy.benchmarks.machine import PACKAGES, describe_machine, installed_version
from ikc_deploy.errors import InputError
from tools.torture.commands import COMMANDS, Fault
from tools.torture.disturbances import (
    DISTURBANCES,
    Disturbance,
    Reference,
    measured,
    namespaces_work,
    new_place,
)
from tools.torture.flat_memory import CALLS
from tools.torture.material import Material, make_material
from tools.torture.readers import READERS

BATCH: Final = 1000
"""Damaged files in one trial of a reader."""

MAX_GROWTH: Final = 16 * 2**20
"""Limit of the growth of memory in bytes; a leak of a frame a call would be ten times that."""

_READER_SECONDS: Final = 600.0
_READERS_SHARE: Final = 0.4
"""Share of the time for the readers; the rest is for commands."""

Trial = Callable[[str, Path], Counter[str]]
"""Runs the trial of a seed in a new folder; returns the counts of outcomes; raises `Fault`."""


@dataclass
class Tally:
    """What has been tried of one kind."""

    share: float
    """Share of the time, relative to the other kinds."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of trials by outcome."""
    seconds: float = 0.0
    """Time spent."""
    trials: int = 0
    """Number of calls of the trial."""


def run_campaign(
    folder: Path,
    seed: int,
    seconds: float,
    only: Sequence[str] = ("*",),
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run trials until the time is over, each kind at least once; return the report.

    Args:
        folder: New folder for everything that is written.
        seed: Seed of all damage; moments of kills also depend on the machine.
        seconds: Time for the trials, without the preparation.
        only: Patterns of the kinds to run, as `fnmatch` has them.
        progress: Called with a line for each trial.
    """
    material = make_material(folder / "material")
    trials, missing = _kinds(material, folder, only)
    tallies = {
        name: Tally(_READERS_SHARE / len(READERS) if name.startswith("read ") else 1 / 30)
        for name in trials
    }
    faults: list[dict[str, str]] = []
    ends = time.monotonic() + seconds
    for number in count():
        # A kind that has not run yet comes first; then the one farthest below its share.
        name = min(tallies, key=lambda each: tallies[each].seconds / tallies[each].share)
        tally = tallies[name]
        if tally.trials and time.monotonic() > ends:
            break
        begin, place = time.monotonic(), folder / f"trial-{number}"
        trial_seed = f"{seed} {name} {tally.trials}"
        try:
            outcomes = trials[name](trial_seed, place)
        except Fault as fault:
            outcomes = Counter(fault=1)
            faults.append({"kind": name, "seed": trial_seed, "what": str(fault)})
        tally.outcomes.update(outcomes)
        tally.trials += 1
        tally.seconds += time.monotonic() - begin
        progress(f"{trial_seed}: {dict(outcomes)}")
        shutil.rmtree(place, ignore_errors=True)
    return _report(seed, seconds, tallies, missing, faults)


def _report(
    seed: int,
    seconds: float,
    tallies: Mapping[str, Tally],
    missing: list[str],
    faults: list[dict[str, str]],
) -> dict[str, Any]:
    machine = describe_machine()
    extra = {name: installed_version(name) for name in ("av", "filelock", "pillow", "tifffile")}
    machine["packages"] |= {
        name: version for name, version in extra.items() if name not in PACKAGES
    }
    return {
        "machine": machine,
        "seed": seed,
        "seconds": seconds,
        "not_run": missing,
        "kinds": {
            name: {
                "outcomes": dict(sorted(tally.outcomes.items())),
                "seconds": round(tally.seconds),
            }
            for name, tally in tallies.items()
        },
        "faults": faults,
    }


def _kinds(
    material: Material, folder: Path, only: Sequence[str]
) -> tuple[dict[str, Trial], list[str]]:
    """Return the trials by kind, and what cannot run on this machine."""
    trials: dict[str, Trial] = {}
    for reader in READERS:
        trials[f"read {reader}"] = _reading(reader, material)
    trials["memory"] = _memory(material)
    missing = []
    mounts = namespaces_work()
    for command in COMMANDS:
        # Measured once, and only if a trial needs it.
        reference = functools.cache(
            functools.partial(measured, command, material, folder / "reference" / command.name)
        )
        for name, disturbance in DISTURBANCES.items():
            kind = f"{command.name}, {name}"
            if name in ("full disk", "read-only folder") and not mounts:
                missing.append(f"{kind}: this user may not mount file systems in a namespace")
            elif command.name == "train" and name == "two writers":
                missing.append(f"{kind}: a second run is refused at once, and no output is shared")
            else:
                trials[kind] = _disturbed(disturbance, reference)
    chosen = {
        name: trial
        for name, trial in trials.items()
        if any(fnmatch(name, pattern) for pattern in only)
    }
    if not chosen:
        raise InputError(f"no kind matches {', '.join(only)}; the kinds are {', '.join(trials)}")
    return chosen, missing


def _reading(reader: str, material: Material) -> Trial:
    def trial(seed: str, place: Path) -> Counter[str]:
        place.mkdir()
        progress = place / "progress"
        line = [sys.executable, "-m", "tools.torture.readers", reader, seed, str(BATCH)]
        line += [str(material.folder), str(progress)]
        try:
            done = subprocess.run(line, capture_output=True, timeout=_READER_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise Fault(f"number {progress.read_text().strip()} does not end") from error
        if done.returncode:
            at = progress.read_text().strip() if progress.exists() else "none"
            tail = done.stderr.decode(errors="replace")[-1500:]
            raise Fault(f"the process ended with {done.returncode} at number {at}: {tail}")
        found = json.loads(done.stdout)
        if found["failures"]:
            raise Fault(f"{len(found['failures'])} failures: " + "\n".join(found["failures"][:3]))
        return Counter(found["outcomes"])

    return trial


def _memory(material: Material) -> Trial:
    def trial(seed: str, place: Path) -> Counter[str]:  # noqa: ARG001 - as all
        line = [sys.executable, "-m", "tools.torture.flat_memory", str(material.folder), seed]
        done = subprocess.run(line, capture_output=True, timeout=_READER_SECONDS, check=False)
        if done.returncode:
            raise Fault(done.stderr.decode(errors="replace")[-1500:])
        grown = int(done.stdout)
        if grown > MAX_GROWTH:
            raise Fault(f"memory grew by {grown / 2**20:.0f} MiB")
        return Counter({"calls": CALLS})

    return trial


def _disturbed(disturbance: Disturbance, reference: Callable[[], Reference]) -> Trial:
    def trial(seed: str, place: Path) -> Counter[str]:
        source = random.Random(seed)
        return Counter([disturbance(new_place(reference(), place / "output", source), source)])

    return trial
