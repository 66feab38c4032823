"""Training jobs of recipe files by their `kind`; without one, the networks of a loop."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from ikc_deploy.errors import RecipeError
from ikc_deploy.loops import LOOPS
from ikc_deploy.shipped_files import find_shipped, shipped_files
from ikc_deploy.text import shown
from ikc_deploy.training.distributed import ProcessGroup
from ikc_deploy.training.fkp_recipe import FkpRecipe
from ikc_deploy.training.fkp_task import FkpTask
from ikc_deploy.training.loop_recipe import LoopRecipe
from ikc_deploy.training.loop_task import LoopTask
from ikc_deploy.training.recipes import TrainingRecipe, read_recipe, recipe_values
from ikc_deploy.training.trainer import Progress, train
from ikc_deploy.training.training_task import TrainingTask
from ikc_deploy.training.usrnet_recipe import UsrnetRecipe
from ikc_deploy.training.usrnet_task import UsrnetTask

_KINDS: Final[dict[str, tuple[type[TrainingRecipe], type[TrainingTask[Any]]]]] = {
    **dict.fromkeys(LOOPS, (LoopRecipe, LoopTask)),
    "fkp": (FkpRecipe, FkpTask),
    "usrnet": (UsrnetRecipe, UsrnetTask),
}


class TrainingJob(Protocol):
    """A job that trains one recipe; see `ikc_deploy.training.trainer.train`."""

    def __call__(
        self,
        run: Path,
        *,
        resume: bool,
        device: torch.device,
        progress: Progress,
        keep_going: Callable[[], bool],
        processes: ProcessGroup,
    ) -> Path | None:
        """Train in the folder `run` and return the result, or None if `keep_going` was False."""
        ...


def load_job(path: str | PathLike[str], data: tuple[Path, ...] = ()) -> TrainingJob:
    """Read a recipe of any kind and return its job.

    Args:
        path: TOML file, or else the name of a shipped recipe: "x4-lite", "fkp", ...
        data: Folders of HR images instead of the recipe's; empty for the recipe's own.

    Raises:
        RecipeError: A setting is missing, unknown or invalid; the message names it and the file.
    """
    file = find_shipped(Path(path), "training")
    if not file.exists():
        names = ", ".join(shipped_files("training"))
        raise RecipeError(
            f"there is no recipe at '{path}'; the names of shipped recipes are {names}"
        )
    kind = recipe_values(file).get("kind", next(iter(LOOPS)))
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RecipeError(
            f"in the recipe '{file}': kind must be one of {', '.join(_KINDS)}, got {shown(kind)}"
        )
    recipe_kind, task_kind = _KINDS[kind]
    recipe = read_recipe(recipe_kind, file, data)

    def job(run: Path, *, device: torch.device, processes: ProcessGroup, **how: Any) -> Path | None:
        return train(task_kind(recipe, device, processes), run, **how)

    return job
