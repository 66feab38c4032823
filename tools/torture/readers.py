"""Thousands of damaged files for every reader, in a process of its own.

    python -m tools.torture.readers READER SEED COUNT MATERIAL PROGRESS

prints a JSON object with the counts and the failures. An exception that is not the package's own is
a failure. The number of the current damage is in the file PROGRESS, for readers that crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ikc_deploy.bundle.engine_store import read_engines
from ikc_deploy.bundle.manifest import BASIS_FILE, MANIFEST_FILE, Bundle
from ikc_deploy.errors import IkcError
from ikc_deploy.kernels import KernelBasis
from tools.torture.material import ENGINE, Material
from tools.torture.mutations import digested, mutated_bytes, mutated_json, mutated_toml

_MAX_MEMORY: Final = 8 * 2**30

Attempt = Callable[[random.Random], None]
"""One damage and one reading; returns if the file could be read, and raises otherwise."""


def manifests(material: Material, scratch: Path) -> Attempt:
    """Return attempts on manifest.json; most have a digest that fits."""
    folder = Path(shutil.copytree(material.bundle(), scratch / "bundle"))
    path, original = folder / MANIFEST_FILE, (material.bundle() / MANIFEST_FILE).read_bytes()
    values = json.loads(original)

    def attempt(source: random.Random) -> None:
        altered = source.randrange(8) > 0
        data = (
            digested(mutated_json(values, source)) if altered else mutated_bytes(original, source)
        )
        path.write_bytes(data)
        read_engines(Bundle.open(folder))

    return attempt


def engine_records(material: Material, scratch: Path) -> Attempt:
    """Return attempts on engine.json, listed with a checksum that fits."""
    folder = Path(shutil.copytree(material.bundle(), scratch / "bundle"))
    name = f"engines/{ENGINE}/engine.json"
    original = (folder / name).read_bytes()
    manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    values = json.loads(original)

    def attempt(source: random.Random) -> None:
        altered = source.randrange(8) > 0
        data = (
            json.dumps(mutated_json(values, source)).encode()
            if altered
            else mutated_bytes(original, source)
        )
        (folder / name).write_bytes(data)
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (folder / MANIFEST_FILE).write_bytes(digested(manifest))
        read_engines(Bundle.open(folder))

    return attempt


def bases(material: Material, scratch: Path) -> Attempt:  # noqa: ARG001 - one signature for all
    """Return attempts on basis.npz."""
    original = (material.bundle() / BASIS_FILE).read_bytes()
    return lambda source: _drop(KernelBasis.from_bytes(mutated_bytes(original, source), BASIS_FILE))


def recipes(material: Material, scratch: Path) -> Attempt:
    """Return attempts on training recipes of every kind."""
    from ikc_deploy.training.recipe_kinds import load_recipe

    training = Path(__file__).resolve().parents[2] / "training"
    texts = [path.read_text() for path in sorted(training.glob("*.toml"))]
    path = scratch / "recipe.toml"

    def attempt(source: random.Random) -> None:
        path.write_bytes(mutated_toml(source.choice(texts), source))
        load_recipe(path, (material.photos(),))

    return attempt


def targets(material: Material, scratch: Path) -> Attempt:  # noqa: ARG001 - one signature for all
    """Return attempts on engine targets."""
    from ikc_deploy.engines.targets import read_target
    from ikc_deploy.shipped_files import shipped_files

    texts = [path.read_text() for path in shipped_files("engines").values()]
    path = scratch / "target.toml"

    def attempt(source: random.Random) -> None:
        path.write_bytes(mutated_toml(source.choice(texts), source))
        read_target(path)

    return attempt


def checkpoints(material: Material, scratch: Path) -> Attempt:
    """Return attempts on checkpoints."""
    from ikc_deploy.networks.checkpoints import load_checkpoint

    original = material.checkpoint(0).read_bytes()
    path = scratch / "tiny.safetensors"

    def attempt(source: random.Random) -> None:
        path.write_bytes(mutated_bytes(original, source))
        load_checkpoint(path)

    return attempt


def pictures(material: Material, scratch: Path) -> Attempt:
    """Return attempts on pictures in every format."""
    from ikc_deploy.imaging.reading import read_picture

    originals = [(path, path.read_bytes()) for path in sorted(material.pictures(0).iterdir())]

    def attempt(source: random.Random) -> None:
        original, data = source.choice(originals)
        path = scratch / original.name
        path.write_bytes(mutated_bytes(data, source))
        read_picture(path, max_pixels=1_000_000)

    return attempt


def clips(material: Material, scratch: Path) -> Attempt:
    """Return attempts on clips in four containers."""
    import av

    from ikc_deploy.video.clip import Clip

    av.logging.set_level(av.logging.PANIC)
    originals = [(path, path.read_bytes()) for path in material.clips()]

    def attempt(source: random.Random) -> None:
        original, data = source.choice(originals)
        path = scratch / original.name
        path.write_bytes(mutated_bytes(data, source))
        with closing(Clip(path)) as clip:
            for _ in islice(clip.frames(), 100):
                pass

    return attempt


READERS: Final[dict[str, Callable[[Material, Path], Attempt]]] = {
    "manifest": manifests,
    "engine record": engine_records,
    "basis": bases,
    "recipe": recipes,
    "engine target": targets,
    "checkpoint": checkpoints,
    "picture": pictures,
    "clip": clips,
}
"""Every reader, by the kind of its file."""


def damage(attempt: Attempt, seed: str, count: int, progress: Path) -> dict[str, Any]:
    """Run attempts; return the counts of outcomes and the failures.

    Args:
        attempt: Damages and reads one file.
        seed: Seed of the attempts; each has a generator of its own.
        count: Number of attempts.
        progress: File for the number of the current attempt.
    """
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    with open(progress, "r+b" if progress.exists() else "w+b", buffering=0) as under_way:
        for number in range(count):
            os.pwrite(under_way.fileno(), b"%12d" % number, 0)
            try:
                attempt(random.Random(f"{seed} {number}"))
            except IkcError as error:
                outcomes["refused"] += 1
                if not str(error).strip():
                    failures.append(f"{seed} {number}: {type(error).__name__} without a message")
            except Exception:
                outcomes["failed"] += 1
                failures.append(f"{seed} {number}: {traceback.format_exc(limit=-3)}")
            else:
                outcomes["read"] += 1
    return {"outcomes": outcomes, "failures": failures}


def _drop(_: object) -> None:
    """Do nothing with what was read."""


def main(reader: str, seed: str, count: str, material: str, progress: str) -> None:
    """Print the counts and failures of one reader as JSON."""
    warnings.simplefilter("ignore")
    # A reader that allocates what a damaged header demands fails, and leaves the machine alone.
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    with TemporaryDirectory() as scratch:
        attempt = READERS[reader](Material(Path(material)), Path(scratch))
        print(json.dumps(damage(attempt, seed, int(count), Path(progress))))


if __name__ == "__main__":
    main(*sys.argv[1:])
