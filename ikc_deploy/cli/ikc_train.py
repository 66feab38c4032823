"""ikc-train: run a training recipe."""

from __future__ import annotations

import importlib.util
import math
import time
from contextlib import nullcontext
from pathlib import Path

import click

from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._ui import progress_bars, say
from ikc_deploy.cli._value_types import PATH, FiniteRange
from ikc_deploy.errors import InputError, MissingExtraError
from ikc_deploy.locks import locked


@click.command(context_settings=HELP)
@reports_errors
@click.argument("recipe", type=PATH)
@click.option("--out", "run", type=PATH, required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Resume the run in --out.")
@click.option(
    "--minutes",
    type=FiniteRange(min=0, min_open=True),
    help="Stop cleanly after this time; --resume continues as if uninterrupted.",
)
@click.option("--device", default="cpu", show_default=True, help="Torch device: cpu, cuda, cuda:1.")
@click.option(
    "--data",
    multiple=True,
    type=PATH,
    help="Folder of HR images instead of the recipe's (repeatable).",
)
def main(
    recipe: Path,
    run: Path,
    resume: bool,
    minutes: float | None,
    device: str,
    data: tuple[Path, ...],
) -> None:
    """Train the networks of RECIPE and write a checkpoint into RUN.

    RECIPE is a TOML file or the name of a shipped recipe, as x4-lite.

    It can be interrupted at any time: --resume continues exactly where the run was saved last.
    For several GPUs: torchrun --nproc-per-node N -m ikc_deploy.cli.ikc_train RECIPE --out RUN
    --device cuda.
    """
    try:
        import torch

        from ikc_deploy.training.distributed import join_process_group, local_device
        from ikc_deploy.training.jobs import load_job
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "training", "ikc-train") from error
    if importlib.util.find_spec("tensorboard") is None:
        # The log of a run needs it; checked now, not after the images were decoded.
        raise MissingExtraError("tensorboard", "training", "ikc-train")
    try:
        target = local_device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the device '{device}' cannot be used: {reason}; give another --device"
        ) from error
    train = load_job(recipe, data)
    ends = time.monotonic() + 60 * minutes if minutes else math.inf
    with (
        join_process_group(target) as processes,
        # The other processes would only find a run that has begun.
        locked(run, seconds=0) if processes.is_main else nullcontext(),
        progress_bars(keep=True, hidden=not processes.is_main) as bars,
    ):

        def show(stage: str, done: int, steps: int, loss: float) -> None:
            bars.show(stage, done, steps, f"loss {loss:.4f}")

        checkpoint = train(
            run,
            resume=resume,
            device=target,
            progress=show,
            keep_going=lambda: time.monotonic() < ends,
            processes=processes,
        )
    if not processes.is_main:
        return
    if checkpoint is None:
        say(f"stopped after {minutes:g} minutes; continue with --resume")
    else:
        say(str(checkpoint))


if __name__ == "__main__":
    main()
