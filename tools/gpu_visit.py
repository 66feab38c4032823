"""A visit to a borrowed GPU machine: pack what travels, train there, bring the weights back.

    python -m tools.gpu_visit pack        # here: fills .visit/ and prints the calls of the visit
    python -m tools.gpu_visit train ...   # there

Each run of the plan (gpu_visit.toml) is first made with a few steps, which compiles its kernels
and measures its speed, then with as many steps as fit into its time, so that the learning rate
reaches its end. A later visit continues from the weights that came back, by `init_from` in a
recipe.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
import time
import tomllib
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from ikc_deploy.networks.checkpoints import load_checkpoint, new_networks, save_checkpoint
from ikc_deploy.training.loop_recipe import LoopRecipe
from ikc_deploy.training.loop_task import LoopTask
from ikc_deploy.training.recipes import read_recipe
from ikc_deploy.training.run_log import LOG_FILE
from ikc_deploy.training.runs import CHECKPOINT_FILE
from ikc_deploy.training.trainer import train

ROOT: Final = Path(__file__).parents[1]
MAX_MIB: Final = 62
"""Most that one call carries, tracked files included; the limit of the machine is 64 MiB."""

_TRIAL_LINES: Final = 3
"""Number of lines of a trial's log; the last one is free of compilation."""
_MIN_STEPS: Final = 20
_CALLS: Final = """\
1. carry .visit/data, limit 595 s:
   nvidia-smi -L; PYTHONUNBUFFERED=1 timeout 585 python3 -m tools.gpu_visit train \\
       --data .visit/data --out $OUT --seconds 535 2>&1 | tee $OUT/log.txt
2. at once, while the machine is warm; carry .visit/wheels, limit 240 s:
   PYTHONUNBUFFERED=1 timeout 230 python3 -m tools.gpu_check \\
       --wheels .visit/wheels --out $OUT/gpu-check.json --seconds 200 2>&1 | tee $OUT/check.txt"""


@click.group()
def main() -> None:
    """Pack for a GPU visit, or train during one."""


@main.command()
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    default=ROOT / "../shared/data/train/hr_free_gpu40.txt",
    help="List of the image files; they are in the folder of its name without _gpu40.",
)
@click.option("--wheels", type=click.Path(path_type=Path), default=ROOT / "../shared/gpu_wheels")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / ".visit")
def pack(images: Path, wheels: Path, out: Path) -> None:
    """Copy what travels into OUT, and print the calls of the visit."""
    folder = images.with_name(images.stem.removesuffix("_gpu40"))
    shutil.rmtree(out, ignore_errors=True)
    for name in images.read_text().split():
        _copy(folder / name, out / "data")
    for wheel in wheels.glob("*.whl"):
        _copy(wheel, out / "wheels")
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    files = [ROOT / name for name in tracked if (ROOT / name).is_file()]
    mib = {
        part: sum(file.stat().st_size for file in [*files, *(out / part).iterdir()]) / 2**20
        for part in ("data", "wheels")
    }
    for part, size in mib.items():
        click.echo(f"{out / part} and the repository: {size:.1f} MiB")
    if max(mib.values()) > MAX_MIB:
        raise click.ClickException(f"that is more than {MAX_MIB} MiB; list fewer images")
    click.echo(_CALLS)


@main.command("train")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of HR images.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of results.")
@click.option("--seconds", type=float, required=True, help="Time in all.")
@click.option("--device", default="cuda", show_default=True)
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), default=ROOT / "tools/gpu_visit.toml"
)
@click.option("--trial-steps", default=150, show_default=True)
def train_plan(
    data: Path, out: Path, seconds: float, device: str, plan_file: Path, trial_steps: int
) -> None:
    """Train the runs of a plan with DATA.

    OUT gets NAME.safetensors (float16) and NAME.log.jsonl of every run, and speeds.json.
    """
    ends = time.monotonic() + seconds
    place = torch.device(device)
    out.mkdir(parents=True, exist_ok=True)
    if place.type == "cuda":
        _say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    runs = [_Run(**entry) for entry in tomllib.loads(plan_file.read_text())["runs"]]
    work = Path(tempfile.mkdtemp(prefix="ikc-visit-"))
    speeds: dict[str, Any] = {}
    finished: dict[str, Path] = {}
    for index, run in enumerate(runs):
        recipe = read_recipe(LoopRecipe, plan_file.parent / run.recipe, (data,))
        if run.init_from is not None:
            recipe = dataclasses.replace(recipe, init_from=str(finished[run.init_from].resolve()))
        recipe, speed = _trial(recipe, trial_steps, work / f"{recipe.name}-trial", place)
        planned = sum(sum(each.seconds.values()) for each in runs[index:])
        factor = max(0.0, ends - time.monotonic()) / planned
        steps = {
            stage: max(_MIN_STEPS, int(run.seconds[stage] * factor / speed[stage]))
            for stage in recipe.stages
        }
        speeds[recipe.name] = speed_record(recipe, speed, steps)
        _say(f"{recipe.name}: factor {factor:.2f}, steps {steps}, seconds a step {speed}")
        (out / "speeds.json").write_text(json.dumps(speeds, indent=1))
        checkpoint = _train(_with_steps(recipe, steps, log_every=200), work / recipe.name, place)
        finished[run.recipe] = checkpoint
        save_checkpoint(
            load_checkpoint(checkpoint), out / f"{recipe.name}.safetensors", torch.float16
        )
        shutil.copy(checkpoint.parent / LOG_FILE, out / f"{recipe.name}.log.jsonl")
        _say(f"{recipe.name}: finished, {ends - time.monotonic():.0f} s left")


def speed_record(
    recipe: LoopRecipe, speed: dict[str, float], steps: dict[str, int]
) -> dict[str, Any]:
    """Return the speed of a run as JSON values, with crops a second and TFLOP/s of F's training."""
    stage = recipe.stages["sftmd"]
    crops = stage.batch / speed["sftmd"]
    network = new_networks(recipe.architecture, 0).sftmd
    side = 32
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.unclamped(
            torch.zeros(1, 3, side, side), torch.zeros(1, recipe.architecture.code_size)
        )
    # A backward pass costs two forward passes.
    operations = 3 * counter.get_total_flops() / side**2 * stage.patch**2
    return {
        "seconds_per_step": speed,
        "steps": steps,
        "sftmd_crops_per_second": round(crops),
        "sftmd_tflops": round(crops * operations / 1e12, 1),
    }


@dataclass(frozen=True)
class _Run:
    recipe: str
    seconds: dict[str, float]
    init_from: str | None = None


def _trial(
    recipe: LoopRecipe, steps: int, folder: Path, device: torch.device
) -> tuple[LoopRecipe, dict[str, float]]:
    """Return the recipe, not compiled if that fails, and the seconds a step of each stage."""
    short = _with_steps(recipe, dict.fromkeys(recipe.stages, steps), steps // _TRIAL_LINES)
    started = time.monotonic()
    try:
        _train(short, folder, device)
    except Exception:  # whatever fails in the compiler must not end the visit
        if not recipe.compile:
            raise
        traceback.print_exc()
        recipe = dataclasses.replace(recipe, compile=False)
        folder = folder.with_name(f"{folder.name}-eager")
        _train(dataclasses.replace(short, compile=False), folder, device)
    _say(f"{recipe.name}: trial of {time.monotonic() - started:.0f} s")
    speed = {}
    for line in (folder / LOG_FILE).read_text().splitlines():
        entry = json.loads(line)
        if "seconds_per_step" in entry:
            speed[entry["stage"]] = entry["seconds_per_step"]
    return recipe, speed


def _with_steps(recipe: LoopRecipe, steps: dict[str, int], log_every: int) -> LoopRecipe:
    stages: dict[str, Any] = {
        name: dataclasses.replace(stage, steps=steps[name]) for name, stage in recipe.stages.items()
    }
    return dataclasses.replace(recipe, stages=stages, log_every=log_every, save_every=10**8)


def _train(recipe: LoopRecipe, folder: Path, device: torch.device) -> Path:
    train(LoopTask(recipe, device), folder, resume=False, progress=_Progress())
    return folder / CHECKPOINT_FILE


class _Progress:
    """A line every 20 seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 20

    def __call__(self, stage: str, done: int, steps: int, loss: float) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 20
            _say(f"  {stage} {done}/{steps} loss {loss:.5f}")


def _copy(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder)


def _say(line: str) -> None:
    click.echo(f"[{time.strftime('%H:%M:%S')}] {line}")


if __name__ == "__main__":
    main()
