"""The kinds of recipe files: `kind` in the file chooses the recipe, and the recipe its task."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Final

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
from ikc_deploy.training.training_task import TrainingTask
from ikc_deploy.training.usrnet_recipe import UsrnetRecipe
from ikc_deploy.training.usrnet_task import UsrnetTask

_RECIPES: Final[dict[str, type[TrainingRecipe]]] = {
    **dict.fromkeys(LOOPS, LoopRecipe),
    "fkp": FkpRecipe,
    "usrnet": UsrnetRecipe,
}
_TASKS: Final[dict[type[TrainingRecipe], type[TrainingTask[Any]]]] = {
    LoopRecipe: LoopTask,
    FkpRecipe: FkpTask,
    UsrnetRecipe: UsrnetTask,
}


def load_recipe(path: str | PathLike[str], data: tuple[Path, ...] = ()) -> TrainingRecipe:
    """Read a recipe of any kind.

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
    if not isinstance(kind, str) or kind not in _RECIPES:
        raise RecipeError(
            f"in the recipe '{file}': kind must be one of {', '.join(_RECIPES)}, got {shown(kind)}"
        )
    return read_recipe(_RECIPES[kind], file, data)


def new_task(
    recipe: TrainingRecipe, device: torch.device, processes: ProcessGroup
) -> TrainingTask[Any]:
    """Return the task of a recipe, for `ikc_deploy.training.trainer.train`.

    Args:
        recipe: The recipe.
        device: Device of this process.
        processes: The processes that train together.

    Raises:
        RecipeError: The task does not support several processes.
    """
    return _TASKS[type(recipe)](recipe, device, processes)
