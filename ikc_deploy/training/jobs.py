"""Training jobs of recipe files by their `kind`; without one, the networks of a loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from ikc_deploy.errors import RecipeError
from ikc_deploy.loops import LOOPS
from ikc_deploy.shipped_files import find_shipped, shipped_files
from ikc_deploy.text import shown
from ikc_deploy.training import fkp_recipe, usrnet_recipe
from ikc_deploy.training.distributed import ProcessGroup
from ikc_deploy.training.fkp_recipe import load_fkp_recipe
from ikc_deploy.training.fkp_training import train_fkp
from ikc_deploy.training.recipes import load_recipe, read_toml
from ikc_deploy.training.trainer import Progress, train
from ikc_deploy.training.usrnet_recipe import load_usrnet_recipe
from ikc_deploy.training.usrnet_training import train_usrnet


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
    kind = read_toml(file).get("kind", next(iter(LOOPS)))
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RecipeError(
            f"in the recipe '{file}': kind must be one of {', '.join(_KINDS)}, got {shown(kind)}"
        )
    return _KINDS[kind](file, data)


def _loop_job(path: str | PathLike[str], data: tuple[Path, ...]) -> TrainingJob:
    return partial(train, load_recipe(path, data))


def _fkp_job(path: str | PathLike[str], data: tuple[Path, ...]) -> TrainingJob:
    if data:
        raise RecipeError(f"the recipe '{path}' trains on kernels, not on images; omit --data")
    return _single_process(partial(train_fkp, load_fkp_recipe(path)))


def _usrnet_job(path: str | PathLike[str], data: tuple[Path, ...]) -> TrainingJob:
    return _single_process(partial(train_usrnet, load_usrnet_recipe(path, data)))


def _single_process(job: Callable[..., Path | None]) -> TrainingJob:
    """Return a job that refuses to run in several processes."""

    def run(run: Path, *, processes: ProcessGroup, **how: Any) -> Path | None:
        if processes.size > 1:
            raise RecipeError(
                "this kind of recipe supports only one process; start it without torchrun"
            )
        return job(run, **how)

    return run


_KINDS: Final[dict[str, Callable[[str | PathLike[str], tuple[Path, ...]], TrainingJob]]] = {
    **dict.fromkeys(LOOPS, _loop_job),
    fkp_recipe.KIND: _fkp_job,
    usrnet_recipe.KIND: _usrnet_job,
}
