"""The training loop: stages in order, average of the weights, log, and a state to resume from.

A run is a folder: `state.pt` (everything needed to go on), `log.jsonl` and `tensorboard/` (what
happened), and at the end `checkpoint.safetensors` (what `ikc-export` takes).
"""

from __future__ import annotations

import copy
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ikc_deploy.errors import InputError, RecipeError
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.checkpoints import IkcNetworks, new_networks, save_checkpoint
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.recipes import Recipe, StageRecipe
from ikc_deploy.training.stages import build_stage
from ikc_deploy.training.validation import Case, load_cases, validate

STATE_FILE: Final = "state.pt"
LOG_FILE: Final = "log.jsonl"
CHECKPOINT_FILE: Final = "checkpoint.safetensors"

_FINAL_RATE = 0.01
_GRADIENT_NORM = 1.0

Progress = Callable[[str, int, int, float], None]
"""Called after every step with (stage, steps done, steps in all, loss)."""


@dataclass
class _State:
    """Where a run stands; what `state.pt` holds."""

    stage: str
    step: int
    networks: dict[str, dict[str, Tensor]]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    recipe: str


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool,
    device: torch.device,
    progress: Progress,
    stop_after: int | None = None,
) -> Path | None:
    """Train (or go on training) all stages of `recipe` in the folder `run`.

    Returns the checkpoint's path, or None if `stop_after` steps of this call came first; then, as
    after any interruption, the state on disk goes on exactly as an unbroken run would. Stages that
    a run has not begun may still be changed or added.
    Raises `RecipeError` if the folder holds another run, `InputError` for unusable data.
    """
    state = _open_run(recipe, run, resume)
    crops = CropSource.from_folders(recipe.data)
    cases = _validation_cases(recipe)
    networks = new_networks(recipe.architecture, recipe.seed)
    for name, module in networks.modules().items():
        module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if state is not None:
            module.load_state_dict(state.networks[name])
    log = _Log(run)
    if state is not None:
        log.forget_after(state.stage, state.step, list(recipe.stages))
    names = list(recipe.stages)
    remaining = stop_after
    for name in names[names.index(state.stage) if state else 0 :]:
        trainer = _StageTrainer(name, recipe, networks, crops, device)
        if state is not None and state.stage == name:
            trainer.restore(state)
        while not trainer.finished:
            if remaining is not None and remaining <= 0:
                trainer.save(run)
                return None
            loss = trainer.step()
            progress(name, trainer.done, trainer.settings.steps, loss)
            remaining = None if remaining is None else remaining - 1
            trainer.report(log, cases, loss)
            if trainer.done % recipe.save_every == 0 and not trainer.finished:
                trainer.save(run)
        trainer.finish(log)
        trainer.save(run)
    networks.training = _training_record(recipe, log)
    path = run / CHECKPOINT_FILE
    save_checkpoint(networks, path)
    return path


class _StageTrainer:
    """One stage in progress: optimizer, schedule, moving average."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        networks: IkcNetworks,
        crops: CropSource,
        device: torch.device,
    ) -> None:
        self.name = name
        self.settings: StageRecipe = recipe.stages[name]
        self.done = 0
        self._recipe = recipe
        self._networks = networks
        self._device = device
        for module in networks.modules().values():
            module.eval().requires_grad_(False)
        self._stage = build_stage(name, crops, networks, recipe, device)
        self._module = self._stage.module.requires_grad_(True)
        self._average = copy.deepcopy(self._module).requires_grad_(False)
        self._optimizer = torch.optim.Adam(
            self._module.parameters(), lr=self.settings.learning_rate, betas=(0.9, 0.99), fused=True
        )
        self._clock = time.monotonic()
        self._recent: list[float] = []

    @property
    def finished(self) -> bool:
        return self.done >= self.settings.steps

    def step(self) -> float:
        """One optimizer step; returns the loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self.settings)
        with torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._recipe.precision == "bfloat16"
        ):
            loss = self._stage.loss(self.done)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._module.parameters(), _GRADIENT_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.done += 1
        # Early on, a long memory would hold on to the random start.
        decay = min(self.settings.ema_decay, self.done / (self.done + 10))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self._average.parameters()), list(self._module.parameters()), 1 - decay
            )
        return float(loss.detach())

    def report(self, log: _Log, cases: list[Case], loss: float) -> None:
        """Log the loss at the recipe's interval, and a validation at its own."""
        self._recent.append(loss)
        if self.done % self._recipe.log_every == 0 or self.finished:
            now = time.monotonic()
            mean = math.fsum(self._recent) / len(self._recent)
            figures = {
                "loss": mean,
                "learning_rate": learning_rate(self.done - 1, self.settings),
                "seconds_per_step": (now - self._clock) / len(self._recent),
            }
            log.write(self.name, self.done, figures)
            self._clock, self._recent = now, []
        validation = self._recipe.validation
        if cases and validation and (self.finished or self.done % validation.every == 0):
            measured = self._with_average(
                lambda: validate(self._networks, cases, self.name, validation.iters, self._device)
            )
            log.write(self.name, self.done, measured)
            self._clock = time.monotonic()

    def adopt_average(self) -> None:
        """The stage's result is the average, not the last step."""
        self._module.load_state_dict(self._average.state_dict())

    def finish(self, log: _Log) -> None:
        """Put the stage's result in place."""
        self.adopt_average()
        figures = self._stage.finish()
        if figures:
            log.write(self.name, self.done, figures)

    def save(self, run: Path) -> None:
        """Write the state to resume from."""
        state = _State(
            stage=self.name,
            step=self.done,
            networks=_state_dicts(self._networks),
            average=self._average.state_dict(),
            optimizer=self._optimizer.state_dict(),
            recipe=_fingerprint(self._recipe),
        )
        _save_state(run, state)

    def restore(self, state: _State) -> None:
        """Go on from a saved state of this stage."""
        self._average.load_state_dict(state.average)
        self._optimizer.load_state_dict(state.optimizer)
        self.done = state.step

    def _with_average(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        current = copy.deepcopy(self._module.state_dict())
        self.adopt_average()
        try:
            return measure()
        finally:
            self._module.load_state_dict(current)


def learning_rate(step: int, settings: StageRecipe) -> float:
    """Linear warm-up, then a half cosine down to a hundredth of the peak."""
    warm = min(1.0, (step + 1) / max(settings.warmup, 1))
    turn = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.learning_rate * warm * (_FINAL_RATE + (1 - _FINAL_RATE) * turn)


class _Log:
    """Appends to log.jsonl and TensorBoard."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = run / LOG_FILE
        self._board = SummaryWriter(str(run / "tensorboard"))

    def write(self, stage: str, step: int, figures: dict[str, float]) -> None:
        line = {"stage": stage, "step": step} | {k: round(v, 6) for k, v in figures.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for key, value in figures.items():
            self._board.add_scalar(f"{stage}/{key}", value, step)
        self._board.flush()

    def forget_after(self, stage: str, step: int, stages: list[str]) -> None:
        """Drop the lines of steps that were made but not saved, which a resumed run makes again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            entry = json.loads(line)
            earlier = entry["stage"] in stages[: stages.index(stage)]
            if earlier or (entry["stage"] == stage and entry["step"] <= step):
                kept.append(line + "\n")
        write_atomically(self.path, "".join(kept).encode())

    def last(self, stage: str) -> dict[str, float]:
        """The newest value of every figure of a stage."""
        merged: dict[str, float] = {}
        for line in self.path.read_text().splitlines():
            entry = json.loads(line)
            if entry["stage"] == stage:
                merged |= {k: v for k, v in entry.items() if k != "stage"}
        return merged


def _open_run(recipe: Recipe, run: Path, resume: bool) -> _State | None:
    path = run / STATE_FILE
    if not path.exists():
        if resume:
            raise InputError(f"'{run}' holds no run to resume; start it without --resume")
        run.mkdir(parents=True, exist_ok=True)
        return None
    if not resume:
        raise InputError(f"'{run}' already holds a run; add --resume to go on, or choose another")
    try:
        state = _State(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise InputError(f"'{path}' cannot be read; the run cannot be resumed ({error})") from error
    begun = list(json.loads(state.recipe)["stages"])
    begun = begun[: begun.index(state.stage) + 1]
    if _fixed(json.loads(state.recipe), begun) != _fixed(json.loads(_fingerprint(recipe)), begun):
        raise RecipeError(
            f"the run in '{run}' was started with other settings; "
            "resume it with its own recipe or start a new run"
        )
    return state


def _save_state(run: Path, state: _State) -> None:
    buffer = io.BytesIO()
    torch.save({name: getattr(state, name) for name in state.__dataclass_fields__}, buffer)
    write_atomically(run / STATE_FILE, buffer.getvalue())


def _state_dicts(networks: IkcNetworks) -> dict[str, dict[str, Tensor]]:
    return {name: module.state_dict() for name, module in networks.modules().items()}


def _fingerprint(recipe: Recipe) -> str:
    """The settings that decide what is computed, as JSON."""
    return json.dumps(
        {
            "architecture": recipe.architecture.to_dict(),
            "seed": recipe.seed,
            "precision": recipe.precision,
            "stages": {name: asdict(stage) for name, stage in recipe.stages.items()},
        }
    )


def _fixed(fingerprint: dict[str, Any], begun: list[str]) -> dict[str, Any]:
    """What a resumed run may not change: everything but the stages that it has not begun."""
    stages = fingerprint["stages"]
    return fingerprint | {"stages": {name: stages.get(name) for name in begun}}


def _validation_cases(recipe: Recipe) -> list[Case]:
    validation = recipe.validation
    if validation is None or not (recipe.folder / validation.folder).is_dir():
        return []
    folder = recipe.folder / validation.folder
    return load_cases(folder, validation.sigmas, recipe.architecture.scale)


def _training_record(recipe: Recipe, log: _Log) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "data": [folder.name for folder in recipe.data],
        "stages": {name: asdict(stage) for name, stage in recipe.stages.items()},
        "last": {name: log.last(name) for name in recipe.stages},
    }
