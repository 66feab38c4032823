"""The real commands under test, and what a whole output of each is."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.imaging.reading import read_picture
from ikc_deploy.networks.checkpoints import load_checkpoint
from tools.torture.material import Material

_TRACEBACK: Final = "Traceback (most recent call last)"


class Fault(Exception):
    """A promise that a command has broken."""


@dataclass(frozen=True)
class WritingCommand:
    """A command that writes one output."""

    name: str
    """Name in the report."""
    module: str
    """Module of the command in `ikc_deploy.cli`."""
    output: str
    """Name of the output."""
    options: Callable[[Material, int], list[str | Path]]
    """Inputs and options for a variant of the material, without the output."""
    read: Callable[[Path], str]
    """Returns the content of a whole output as text; raises for any other."""
    resumes: bool = False
    """Whether --resume continues a killed run, whose work lies in or beside the output."""
    replaces: bool = True
    """Whether the output may exist before."""

    def line(self, material: Material, variant: int, out: Path) -> list[str]:
        """Return the command line that writes the folder or file `out`."""
        where = "--out" if self.module in ("ikc_export", "ikc_train") else "-o"
        options = [*self.options(material, variant), where, out]
        return [sys.executable, "-m", f"ikc_deploy.cli.{self.module}", *map(str, options)]

    def content(self, out: Path) -> str | None:
        """Return the content of an output, or None if it is absent; raise `Fault` if damaged."""
        if not out.exists():
            return None
        try:
            return self.read(out)
        except Exception as error:
            raise Fault(f"{self.name}: the output is damaged: {error!r}") from error


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code; negative for a signal."""
    errors: str
    """Standard error."""


def check_end(ended: Ended, allowed: tuple[int, ...] = (0, 2)) -> None:
    """Raise `Fault` unless a process ended with an allowed code, a message and no traceback."""
    tail = ended.errors[-1500:]
    if _TRACEBACK in ended.errors:
        raise Fault(f"a traceback: {tail}")
    if ended.code not in allowed:
        raise Fault(f"exit code {ended.code}: {tail}")
    if ended.code == 2 and not ended.errors.strip():
        raise Fault("exit code 2 without a message")


def run(line: list[str], seconds: float) -> Ended:
    """Run a command to its end.

    Raises:
        Fault: It does not end within `seconds`.
    """
    try:
        done = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Fault(f"did not end within {seconds:.0f} seconds") from error
    return Ended(done.returncode, done.stderr.decode(errors="replace"))


def _bundle(out: Path) -> str:
    bundle = Bundle.open(out)
    if bundle.unlisted():
        raise ValueError(f"unlisted files: {bundle.unlisted()}")
    return f"{bundle.manifest.weights_sha256} {sorted(bundle.files)}"


def _checkpoint(run_folder: Path) -> str:
    (path,) = run_folder.glob("*.safetensors")
    networks = load_checkpoint(path)
    digest = hashlib.sha256()
    for module in networks.modules().values():
        for tensor in module.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def picture_digest(path: Path) -> str:
    """Return the sha256 of the pixels of a picture."""
    return hashlib.sha256(read_picture(path).rgb.tobytes()).hexdigest()


def _pictures(out: Path) -> str:
    return json.dumps({path.name: picture_digest(path) for path in sorted(out.iterdir())})


def _clip(out: Path) -> str:
    # Not the pixels: x264 does not repeat itself on narrow frames.
    with closing(av.open(str(out))) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    with closing(av.open(str(out))) as container:
        sound = sum(packet.size for packet in container.demux(audio=0))
    return f"{len(frames)} {[int(np.rint(frame.mean() / 8)) for frame in frames]} {sound}"


COMMANDS: Final = (
    WritingCommand(
        "export",
        "ikc_export",
        "bundle",
        lambda material, variant: ["--fp32", "--weights", material.checkpoint(variant)],
        _bundle,
    ),
    WritingCommand(
        "train",
        "ikc_train",
        "run",
        lambda material, _: [material.recipe(), "--data", material.photos()],
        _checkpoint,
        resumes=True,
        replaces=False,
    ),
    WritingCommand(
        "picture",
        "ikc_upscale",
        "out.png",
        lambda material, variant: [
            material.pictures(variant) / "a.png",
            *("--bundle", material.bundle(), "--threads", "1", "--overwrite"),
        ],
        picture_digest,
    ),
    WritingCommand(
        "batch",
        "ikc_upscale",
        "out",
        lambda material, variant: [
            material.pictures(variant),
            *("--bundle", material.bundle(), "--threads", "1", "--overwrite"),
        ],
        _pictures,
    ),
    WritingCommand(
        "clip",
        "ikc_upscale",
        "out.mp4",
        lambda material, variant: [
            material.clip("mp4", variant),
            *("--bundle", material.bundle(), "--threads", "1", "--overwrite"),
        ],
        _clip,
        resumes=True,
    ),
)
"""The commands that write: every kind of output of this package."""
