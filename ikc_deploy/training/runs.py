"""The folder of a run: the saved state. `run_log` writes the log in the same folder.

`state.json` specifies stage and step and names two files: `weights-*.pt` (the networks and the
moving average) and `optimizer-*.pt` (twice as large). It is written last, so a killed run always
leaves a complete state. A run that was moved without its optimizer file resumes with new moments.

`run.json` is written first: a folder that has it holds a run, even if no state was saved yet. A new
run is not started in a folder that holds anything else.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ikc_deploy.errors import CheckpointError, InputError, RecipeError
from ikc_deploy.files import check_folder, write_atomically
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.networks.tensors import fill, unusable
from ikc_deploy.training.image_sets import ImageSet
from ikc_deploy.training.recipes import TrainingRecipe
from ikc_deploy.training.run_log import LOG_FILE, diverged, log_files

RUN_FILE: Final = "run.json"
STATE_FILE: Final = "state.json"
CHECKPOINT_FILE: Final = "checkpoint.safetensors"

_LOG = logging.getLogger(__name__)


@dataclass
class RunState:
    """The state of a run."""

    stage: str
    """Name of the current stage."""
    step: int
    """Number of completed steps of the stage."""
    networks: dict[str, dict[str, Tensor]]
    """State dicts of the networks, by name."""
    average: dict[str, Tensor]
    """State dict of the moving average; empty if the stage has none."""
    optimizer: dict[str, Any] | None
    """State dict of the optimizer; None if the run was moved without it."""
    basis: KernelBasis | None = None
    """Basis of the networks' codes; never fitted again, as another machine rounds differently."""


def save_state(
    run: Path, recipe: TrainingRecipe, state: RunState, images: ImageSet | None = None
) -> None:
    """Write the state; a process killed at any moment leaves the previous one or this one.

    Args:
        run: Folder of the run.
        recipe: Recipe of the run.
        state: State to write; tensors may be on any device.
        images: Training images of the run, if it has any.

    Raises:
        TrainingError: Weights are not finite; the previous state is kept.
    """
    for tensors in (*state.networks.values(), state.average):
        broken = unusable({k: v for k, v in tensors.items() if v.is_floating_point()})
        for names in broken.values():
            if names:
                raise diverged(run, state.stage, state.step, f"'{names[0]}'")
    label = f"{state.stage}-{state.step}"
    weights, optimizer = f"weights-{label}.pt", f"optimizer-{label}.pt"
    kept = {"networks": state.networks, "average": state.average, "basis": _kept(state.basis)}
    _write(run / weights, kept)
    _write(run / optimizer, state.optimizer)
    pointer = {
        "stage": state.stage,
        "step": state.step,
        "weights": weights,
        "optimizer": optimizer,
        "recipe": recipe.fingerprint,
        "images": images and asdict(images),
    }
    write_atomically(run / STATE_FILE, json.dumps(pointer, indent=1).encode())
    for name in _state_files(run, recipe.fingerprint["stages"]):
        if name not in (weights, optimizer):
            (run / name).unlink()


def open_run(
    recipe: TrainingRecipe, run: Path, resume: bool, images: ImageSet | None = None
) -> RunState | None:
    """Return the state to resume from; create the folder of a new run and return None.

    Args:
        recipe: Recipe of the run.
        run: Folder of the run.
        resume: Whether to resume from the state in `run`.
        images: Training images of the run, if it has any.

    Returns:
        The state with its tensors on the CPU, or None for a new run.

    Raises:
        InputError: There is no state to resume, `run` holds a state and `resume` is False, or the
            state is damaged.
        OutputError: The folder of a new run cannot be written, or holds anything but a run that was
            killed before it saved its state.
        RecipeError: The state is of another recipe, or was trained on other images than `images`.
    """
    path = run / STATE_FILE
    if not path.exists():
        if resume:
            raise InputError(f"'{run}' holds no run to resume; start it without --resume")
        _begin(recipe, run)
        return None
    if not resume:
        raise InputError(f"'{run}' already holds a run; add --resume, or choose another folder")
    try:
        pointer = json.loads(path.read_text())
        weights = _read(run / pointer["weights"])
        optimizer = run / pointer["optimizer"]
        moments = _read(optimizer) if optimizer.exists() else None
        basis = _basis(weights.pop("basis"))
        state = RunState(
            pointer["stage"], pointer["step"], **weights, optimizer=moments, basis=basis
        )
        recorded: dict[str, Any] = pointer["recipe"]
        begun = list(recorded["stages"])
        begun = begun[: begun.index(state.stage) + 1]
        trained_on = ImageSet(**pointer["images"]) if pointer["images"] else None
        _refuse_damaged(state)
    except Exception as error:
        raise InputError(f"'{path}' cannot be read; the run cannot be resumed ({error})") from error
    if moments is None:
        _LOG.warning("'%s' is missing: the optimizer starts with new moments", optimizer)
    if _fixed(recorded, begun) != _fixed(json.loads(json.dumps(recipe.fingerprint)), begun):
        raise RecipeError(
            f"the run in '{run}' was started with other settings; "
            "resume it with its own recipe, or start a new run"
        )
    if trained_on != images:
        raise RecipeError(
            f"the run in '{run}' was trained on other images ({_label(trained_on)}, now "
            f"{_label(images)}); pass the same folders in the same order, or start a new run"
        )
    return state


def restore(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy the tensors of a state into a module.

    Raises:
        CheckpointError: The tensors do not fit.
    """
    fill({"": module}, tensors, "the saved state does not fit the recipe's networks")


def restore_optimizer(optimizer: torch.optim.Optimizer, moments: dict[str, Any] | None) -> None:
    """Copy the moments of a state, if it has any, into an optimizer.

    Raises:
        CheckpointError: The moments do not fit.
    """
    if moments is None:
        return
    try:
        optimizer.load_state_dict(moments)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"the saved state of the optimizer is damaged: {error}") from error


def _label(images: ImageSet | None) -> str:
    return f"{images.images} of checksum {images.sha256[:12]}" if images else "none recorded"


def _refuse_damaged(state: RunState) -> None:
    if type(state.step) is not int or state.step < 0:
        raise ValueError(f"its step is {state.step!r}")
    for tensors in (*state.networks.values(), state.average):
        broken = unusable({k: v for k, v in tensors.items() if v.is_floating_point()})
        if any(broken.values()):
            raise ValueError(f"its weights are not finite: {broken}")


def _kept(basis: KernelBasis | None) -> dict[str, Any] | None:
    if basis is None:
        return None
    components, mean = (torch.from_numpy(a.copy()) for a in (basis.components, basis.mean))
    return {"components": components, "mean": mean, "sigma_range": basis.sigma_range}


def _basis(kept: dict[str, Any] | None) -> KernelBasis | None:
    if kept is None:
        return None
    low, high = kept["sigma_range"]
    return KernelBasis(kept["components"].numpy(), kept["mean"].numpy(), (low, high))


def _begin(recipe: TrainingRecipe, run: Path) -> None:
    stages = recipe.fingerprint["stages"]

    def own(folder: Path) -> list[str]:
        try:
            begun = "recipe" in json.loads((folder / RUN_FILE).read_text())
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"'{folder}' holds no run ({error})") from error
        return [RUN_FILE, *log_files(folder), *_state_files(folder, stages)] if begun else []

    check_folder(run, own, "a run of ikc-train", whole=False)
    run.mkdir(parents=True, exist_ok=True)
    # A run without a saved state repeats everything that it has logged.
    (run / LOG_FILE).unlink(missing_ok=True)
    write_atomically(run / RUN_FILE, json.dumps({"recipe": recipe.fingerprint}, indent=1).encode())


def _state_files(run: Path, stages: Iterable[str]) -> list[str]:
    """Return the names of all files in a run's folder that are part of a state."""
    names = "|".join(map(re.escape, stages))
    own = re.compile(rf"(weights|optimizer)-({names})-\d+\.pt")
    return [path.name for path in run.iterdir() if own.fullmatch(path.name)]


def _write(path: Path, value: object) -> None:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_atomically(path, buffer.getvalue())


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _fixed(fingerprint: dict[str, Any], begun: list[str]) -> dict[str, Any]:
    """Return what a resumed run may not change: all but the stages that it has not begun."""
    stages = fingerprint["stages"]
    return fingerprint | {"stages": {name: stages.get(name) for name in begun}}
