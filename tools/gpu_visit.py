"""A visit to a borrowed GPU machine: train for the time that is left, bring the weights back.

    python -m tools.gpu_visit --data DIR --out DIR --seconds 570

Each run of `training/visit.toml` is first run for a few steps, which compiles its kernels and measures
its speed, then with as many steps as fit into its time, so that the learning rate reaches its end.
OUT gets, for every run, NAME.safetensors (float16) and NAME.log.jsonl, and speeds.json. A later visit
continues from shipped weights by `init_from`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
import tomllib
import traceback
from pathlib import Path
from typing import Any, Final

import click
import torch

from ikc_deploy.networks.checkpoints import load_checkpoint, save_checkpoint
from ikc_deploy.training.batch_degradation import _correlated_by_fft
from ikc_deploy.training.recipes import Recipe, load_recipe
from ikc_deploy.training.runs import CHECKPOINT_FILE, LOG_FILE
from ikc_deploy.training.trainer import train

RECIPES: Final = Path(__file__).parents[1] / "training"
_TRIAL: Final = {"predictor": 150, "sftmd": 150, "corrector": 60}
"""Steps of the trial of each stage."""
_TRIAL_LINES: Final = 3
_MIN_STEPS: Final = 20


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of HR images.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of results.")
@click.option("--seconds", type=float, required=True, help="Time in all.")
@click.option("--device", default="cuda", show_default=True)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    default=RECIPES / "visit.toml",
    show_default="training/visit.toml",
)
def main(data: Path, out: Path, seconds: float, device: str, plan_file: Path) -> None:
    """Train the runs of the plan with DATA, and write their weights into OUT."""
    ends = time.monotonic() + seconds
    place = torch.device(device)
    out.mkdir(parents=True, exist_ok=True)
    if place.type == "cuda":
        _say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
        _say(f"blur of 64 crops of 256: {_blur_times()}")
    runs = tomllib.loads(plan_file.read_text())["runs"]
    work = Path(tempfile.mkdtemp(prefix="ikc-visit-"))
    speeds: dict[str, Any] = {}
    finished: dict[str, Path] = {}
    for index, run in enumerate(runs):
        recipe = load_recipe(RECIPES / f"{run['name']}.toml", (data,))
        start = run.get("init_from")
        if start is not None:
            if start not in finished:
                _say(f"{run['name']}: skipped, as {start} did not finish")
                continue
            recipe = dataclasses.replace(recipe, init_from=str(finished[start].resolve()))
        if device == "cpu":
            recipe = dataclasses.replace(recipe, compile=False)
        recipe, speed = _trial(recipe, work / f"{run['name']}-trial", place)
        speeds[run["name"]] = {"seconds_per_step": speed}
        planned = sum(sum(each["seconds"].values()) for each in runs[index:])
        factor = max(0.0, ends - time.monotonic()) / planned
        steps = {
            name: max(_MIN_STEPS, int(run["seconds"][name] * factor / speed[name]))
            for name in recipe.stages
        }
        speeds[run["name"]]["steps"] = steps
        _say(f"{run['name']}: factor {factor:.2f}, {steps}, seconds a step {speed}")
        (out / "speeds.json").write_text(json.dumps(speeds, indent=1))
        checkpoint = _run(_with_steps(recipe, steps, log_every=200), work / run["name"], place)
        finished[run["name"]] = checkpoint
        save_checkpoint(load_checkpoint(checkpoint), out / f"{run['name']}.safetensors", torch.float16)
        shutil.copy(checkpoint.parent / LOG_FILE, out / f"{run['name']}.log.jsonl")
        _say(f"{run['name']}: finished, {ends - time.monotonic():.0f} s left")


def _trial(
    recipe: Recipe, folder: Path, device: torch.device
) -> tuple[Recipe, dict[str, float]]:
    """Return the recipe, without compilation if that fails, and the seconds a step of each stage."""
    short = _with_steps(recipe, _TRIAL, log_every=min(_TRIAL.values()) // _TRIAL_LINES)
    started = time.monotonic()
    try:
        _run(short, folder, device)
    except Exception:  # whatever fails in the compiler must not end the visit
        if not recipe.compile:
            raise
        traceback.print_exc()
        recipe = dataclasses.replace(recipe, compile=False)
        folder = folder.with_name(f"{folder.name}-eager")
        _run(dataclasses.replace(short, compile=False), folder, device)
    _say(f"{recipe.name}: trial of {time.monotonic() - started:.0f} s")
    speed = {}
    for line in (folder / LOG_FILE).read_text().splitlines():
        entry = json.loads(line)
        if "seconds_per_step" in entry:
            speed[entry["stage"]] = entry["seconds_per_step"]
    return recipe, speed


def _with_steps(recipe: Recipe, steps: dict[str, int], log_every: int) -> Recipe:
    stages = {
        name: dataclasses.replace(stage, steps=steps[name]) for name, stage in recipe.stages.items()
    }
    return dataclasses.replace(recipe, **stages, log_every=log_every, save_every=10**8)


def _run(recipe: Recipe, folder: Path, device: torch.device) -> Path:
    progress = _Progress()
    train(recipe, folder, resume=False, device=device, progress=progress)
    return folder / CHECKPOINT_FILE


class _Progress:
    """A line every 20 seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic()

    def __call__(self, stage: str, done: int, steps: int, loss: float) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 20
            _say(f"  {stage} {done}/{steps} loss {loss:.5f}")


def _blur_times() -> dict[str, float]:
    """Return the milliseconds of both ways to blur a batch on the GPU."""
    images = torch.rand(64, 3, 276, 276, device="cuda")
    kernels = torch.rand(64, 21, 21, device="cuda")
    ways = {
        "fft": lambda: _correlated_by_fft(images, kernels),
        "convolution": lambda: torch.nn.functional.conv2d(
            images.transpose(0, 1), kernels[:, None], groups=64
        ),
    }
    times = {}
    for name, way in ways.items():
        way()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            way()
        torch.cuda.synchronize()
        times[name] = round(200 * (time.perf_counter() - started), 3)
    return times


def _say(line: str) -> None:
    click.echo(f"[{time.strftime('%H:%M:%S')}] {line}")


if __name__ == "__main__":
    main()
