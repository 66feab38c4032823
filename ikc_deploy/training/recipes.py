"""Training recipes: TOML files read into frozen settings, checked before anything starts."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ikc_deploy.errors import CheckpointError, RecipeError
from ikc_deploy.networks.architecture import Architecture, architecture

Precision = Literal["float32", "bfloat16"]
_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class StageRecipe:
    """How long and on what one stage trains."""

    steps: int
    """Optimizer steps."""
    batch: int
    """Crops in a step."""
    patch: int
    """Side of a crop in LR pixels."""
    learning_rate: float
    """Peak of the schedule: linear warm-up, then a cosine down to a hundredth."""
    warmup: int = 200
    """Steps of the warm-up."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights, which is what a stage returns."""
    unroll: int = 4
    """Corrections in a row that `corrector` and `joint` train on; other stages ignore it."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patch", "unroll"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise RecipeError(f"{name} must be a positive integer, got {getattr(self, name)!r}")
        if not 0 < self.learning_rate < 1:
            raise RecipeError(f"learning_rate must lie in (0, 1), got {self.learning_rate!r}")
        if not 0 <= self.ema_decay < 1:
            raise RecipeError(f"ema_decay must lie in [0, 1), got {self.ema_decay!r}")


@dataclass(frozen=True)
class ValidationRecipe:
    """A small Gaussian8-like measurement in the log while training."""

    folder: str
    """HR images, relative to the recipe file. A missing folder switches validation off."""
    sigmas: tuple[float, ...]
    every: int
    """Steps between validations; the end of each stage is always validated."""
    iters: int = 7


@dataclass(frozen=True)
class Recipe:
    """One training run: stages in the order sftmd, predictor, corrector, joint."""

    name: str
    architecture: Architecture
    data: tuple[Path, ...]
    """Folders of HR images, as absolute paths."""
    sftmd: StageRecipe
    predictor: StageRecipe
    corrector: StageRecipe
    joint: StageRecipe | None
    """Fine-tuning of F and C on the codes of the loop; optional."""
    seed: int
    precision: Precision
    log_every: int
    save_every: int
    validation: ValidationRecipe | None
    folder: Path
    """Where the recipe lies: relative folders start here."""

    @property
    def stages(self) -> dict[str, StageRecipe]:
        """The stages by name, in training order."""
        stages = {"sftmd": self.sftmd, "predictor": self.predictor, "corrector": self.corrector}
        return stages if self.joint is None else stages | {"joint": self.joint}


def load_recipe(path: str | PathLike[str], data: tuple[Path, ...] = ()) -> Recipe:
    """Read a recipe; `data` replaces the recipe's folders of training images.

    Raises `RecipeError` naming the file and the setting that is missing, unknown or impossible.
    """
    file = Path(path)
    try:
        values = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe at '{file}'") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"'{file}' is not valid TOML: {error}") from error
    try:
        return _parse(values, file, data)
    except (RecipeError, CheckpointError) as error:
        raise RecipeError(f"in the recipe '{file}': {error}") from error


def _parse(values: dict[str, Any], file: Path, data: tuple[Path, ...]) -> Recipe:
    known = {"name", "architecture", "data", "seed", "precision", "log_every", "save_every"}
    known |= {"sftmd", "predictor", "corrector", "joint", "validation"}
    _refuse_unknown(values, known)
    missing = sorted({"architecture", "sftmd", "predictor", "corrector"} - set(values))
    if missing:
        raise RecipeError(f"missing: {', '.join(missing)}")
    precision = values.get("precision", "float32")
    if precision not in get_args(Precision):
        raise RecipeError(f"precision must be one of {list(get_args(Precision))}")
    folder = file.resolve().parent
    folders = tuple(path.resolve() for path in data) or tuple(
        (folder / entry).resolve() for entry in values.get("data", ())
    )
    if not folders:
        raise RecipeError("no training images: set 'data' to folders of HR images")
    joint, validation = values.get("joint"), values.get("validation")
    return Recipe(
        name=values.get("name", file.stem),
        architecture=_architecture(values["architecture"]),
        data=folders,
        sftmd=_settings(StageRecipe, values["sftmd"], "sftmd"),
        predictor=_settings(StageRecipe, values["predictor"], "predictor"),
        corrector=_settings(StageRecipe, values["corrector"], "corrector"),
        joint=joint and _settings(StageRecipe, joint, "joint"),
        seed=values.get("seed", 0),
        precision=precision,
        log_every=values.get("log_every", 50),
        save_every=values.get("save_every", 500),
        validation=validation and _settings(ValidationRecipe, validation, "validation"),
        folder=folder,
    )


def _architecture(value: str | dict[str, Any]) -> Architecture:
    return architecture(value) if isinstance(value, str) else Architecture.from_dict(value)


def _settings(kind: type[_Settings], values: dict[str, Any], table: str) -> _Settings:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    required = {f.name for f in fields(kind) if f.default is MISSING}  # type: ignore[arg-type]
    _refuse_unknown(values, known, table)
    missing = sorted(required - set(values))
    if missing:
        raise RecipeError(f"[{table}] misses {', '.join(missing)}")
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def _refuse_unknown(values: dict[str, Any], known: set[str], table: str = "") -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        where = f"[{table}] has" if table else "it has"
        raise RecipeError(
            f"{where} unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
