"""ikc-train: run a training recipe."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ikc_deploy.cli.common import HELP, err_console, reports_errors
from ikc_deploy.errors import InputError, MissingExtraError


@click.command(context_settings=HELP)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--out", "run", type=click.Path(path_type=Path), required=True, help="Folder of the run."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option(
    "--device", default="cpu", show_default=True, help="A torch device: cpu, cuda, cuda:1."
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of HR images instead of the recipe's (repeatable).",
)
@reports_errors
def main(recipe: Path, run: Path, resume: bool, device: str, data: tuple[Path, ...]) -> None:
    """Train the networks of RECIPE (a TOML file) and write RUN/checkpoint.safetensors.

    Interrupt it whenever you like: --resume goes on exactly where it was saved last.
    """
    try:
        import torch

        from ikc_deploy.training.recipes import load_recipe
        from ikc_deploy.training.trainer import train
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "training", "ikc-train") from error
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device '{device}' cannot be used: {reason}") from error
    settings = load_recipe(recipe, data)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    # Off a terminal even a finished bar leaves lines behind; the log has it all.
    quiet = not err_console.is_terminal
    with Progress(*columns, console=err_console, disable=quiet) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, steps: int, loss: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=steps, loss=loss)
            bars.update(tasks[stage], completed=done, loss=loss)

        checkpoint = train(settings, run, resume=resume, device=target, progress=show)
    click.echo(checkpoint)


if __name__ == "__main__":
    main()
