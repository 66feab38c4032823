"""The command `python -m tools.gpu_check`, which `make gpu-check` runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from ikc_deploy.bundle.gpus import find_gpus
from ikc_deploy.errors import InputError
from ikc_deploy.files import write_atomically

if TYPE_CHECKING:
    from tools.gpu_check.parts import PartOutcome

console = Console(highlight=False, soft_wrap=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--weights", default="x4-lite", show_default=True, help="As for ikc-export.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The JSON file.  [default: benchmarks/results/gpu-check-GPU.json]",
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path),
    help="Folder of wheels to install for this run only, for example pycuda without a network.",
)
@click.option(
    "--seconds",
    default=420.0,
    show_default=True,
    help="Parts that would start later do not run.",
)
@click.option("--frames", default=1000, show_default=True, help="Frames of each leak test.")
@click.option("--only", multiple=True, help="Run only parts whose names contain this.")
def main(
    weights: str,
    out: Path | None,
    wheels: Path | None,
    seconds: float,
    frames: int,
    only: tuple[str, ...],
) -> None:
    """Run all GPU checks that this machine supports, and list those that did not run."""
    if wheels is not None:
        _use_wheels(wheels)
    from ikc_deploy.networks.weights_loader import load_weights
    from tools.gpu_check.checks import Check, GpuCheckSettings
    from tools.gpu_check.parts import run_parts
    from tools.gpu_check.torch_runner import OnTheGpu

    check = Check(load_weights(weights), GpuCheckSettings(frames=frames), OnTheGpu())
    parts = {
        name: part
        for name, part in check.parts().items()
        if not only or any(words in name for words in only)
    }
    outcomes = run_parts(parts, seconds, _say)
    gpus, _ = find_gpus()
    gpu = gpus[0].name if gpus else "no GPU"
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    path = out or Path("benchmarks/results") / f"gpu-check-{slug}.json"
    write_atomically(path, json.dumps(report(outcomes, weights, frames), indent=2).encode())
    counts = {status: sum(o.status == status for o in outcomes) for status in _COLOURS}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
    console.print(str(path))
    sys.exit(1 if counts["failed"] else 0)


def report(outcomes: list[PartOutcome], weights: str, frames: int) -> dict[str, object]:
    """Return the report as JSON values: machine, settings and the outcome of every part."""
    from ikc_deploy.benchmarks.machine import describe_machine, installed_version

    names = ("pycuda", "cuda-bindings", "cuda-core", "tensorrt", "tensorrt_rtx", "polygraphy")
    return {
        "machine": describe_machine(),
        "gpu_packages": {name: installed_version(name) for name in names},
        "weights": weights,
        "frames": frames,
        "tf32": False,
        "parts": [asdict(outcome) for outcome in outcomes],
    }


_COLOURS = {"passed": "green", "failed": "red", "not run": "yellow"}


def _say(outcome: PartOutcome) -> None:
    console.print(f"[{_COLOURS[outcome.status]}]{outcome.status:8}[/]", end=" ")
    told = outcome.reason or json.dumps(outcome.facts)
    console.print(f"{outcome.part} ({outcome.seconds:.1f} s): {told}", markup=False)


def _use_wheels(folder: Path) -> None:
    """Install the folder's wheels for this process, which must not have imported them yet."""
    files = sorted(map(str, folder.glob("*.whl")))
    if not files:
        raise InputError(f"'{folder}' holds no wheels (.whl); give a folder of wheels")
    site = tempfile.mkdtemp(prefix="ikc-wheels-")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*command, "--target", site, *files], check=True)
    sys.path.insert(0, site)


if __name__ == "__main__":
    main()
