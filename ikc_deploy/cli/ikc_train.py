"""ikc-train: run a training recipe."""

from __future__ import annotations

import importlib.util
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._ui import progress_bars, say
from ikc_deploy.cli._value_types import PATH
from ikc_deploy.errors import InputError, MissingExtraError, needs_extra
from ikc_deploy.locks import locked
from ikc_deploy.option_fields import Option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunOptions:
    """Options of a training run."""

    folder: Annotated[Path, Option("Folder of the run.", flags=("--out",))]
    resume: Annotated[bool, Option("Resume the run in --out.")] = False
    minutes: Annotated[
        float | None,
        Option(
            "Stop cleanly after this time; --resume continues as if uninterrupted.",
            default="no limit",
            positive=True,
        ),
    ] = None
    device: Annotated[str, Option("Torch device: cpu, cuda, cuda:1.")] = "cpu"
    data: Annotated[tuple[Path, ...], Option("Folder of HR images instead of the recipe's.")] = ()


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@click.argument("recipe", type=PATH)
@option_group(RunOptions, "run")
def main(recipe: Path, run: RunOptions) -> None:
    """Train the networks of RECIPE and write checkpoint.safetensors into the folder --out.

    RECIPE is a TOML file or the name of a shipped recipe, for example x4-lite. Without --data, the
    image sets that it names are searched in the folders of the variable IKC_DATASETS, then in
    datasets/.

    Training can be interrupted at any time: --resume continues from the last saved state.
    For several GPUs: torchrun --nproc-per-node N -m ikc_deploy.cli.ikc_train RECIPE --out RUN
    --device cuda.
    """
    with needs_extra("training", "ikc-train"):
        from ikc_deploy.training.distributed import join_process_group
        from ikc_deploy.training.recipe_kinds import load_recipe, new_task
        from ikc_deploy.training.trainer import train
    if importlib.util.find_spec("tensorboard") is None:
        # Needed for the log; checked now, not after the images have been decoded.
        raise MissingExtraError("tensorboard", "training", "ikc-train")
    device = _open_device(run.device)
    loaded = load_recipe(recipe, run.data)
    ends = time.monotonic() + 60 * run.minutes if run.minutes else math.inf
    with (
        join_process_group(device) as processes,
        # Only the main process: the others would find the lock taken.
        locked(run.folder, seconds=0) if processes.is_main else nullcontext(),
        progress_bars(keep=True, hidden=not processes.is_main) as bars,
    ):

        def show(stage: str, done: int, steps: int, loss: float) -> None:
            bars.show(stage, done, steps, f"loss {loss:.4f}")

        checkpoint = train(
            new_task(loaded, device, processes),
            run.folder,
            resume=run.resume,
            progress=show,
            keep_going=lambda: time.monotonic() < ends,
        )
    if not processes.is_main:
        return
    if checkpoint is None:
        say(f"stopped after {run.minutes:g} minutes; continue with --resume")
    else:
        say(str(checkpoint))


def _open_device(name: str) -> torch.device:
    """Return this process's device; raise `InputError` if torch cannot use it."""
    import torch

    from ikc_deploy.training.distributed import local_device

    try:
        device = local_device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the device '{name}' cannot be used: {reason}; give another --device"
        ) from error
    return device


if __name__ == "__main__":
    main()
