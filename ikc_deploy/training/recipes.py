"""Training recipes of every kind: the common settings, and the reader of their TOML files.

A kind is a subclass of `TrainingRecipe`: its fields are the settings and tables of a file, which
`read_recipe` reads by their annotations, so each setting and its default are stated once.
"""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from os import PathLike
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from ikc_deploy.errors import CheckpointError, RecipeError
from ikc_deploy.files import real_path
from ikc_deploy.parsing import read_toml
from ikc_deploy.text import shown
from ikc_deploy.training.image_sets import is_name, require_image_set
from ikc_deploy.typed_values import PathText, SettingError, check_names, read_settings, typed

Precision = Literal["float32", "bfloat16"]
_Settings = TypeVar("_Settings")
_Recipe = TypeVar("_Recipe", bound="TrainingRecipe")

MAX_BATCH: Final = 65_536
MAX_COUNT: Final = 10**9
"""Largest number of steps, or of anything else that is counted: centuries of training."""
MAX_SEED: Final = 2**32 - 1
"""Largest seed of a recipe; larger ones are for held-out data."""


_NOT_IN_FILES: Final = ("folder", "stages")
"""Fields of recipes that no setting of a file has the name of."""


@dataclass(frozen=True)
class Optimization:
    """How a stage makes Adam's steps, apart from their number and learning rate."""

    betas: tuple[float, float] = (0.9, 0.99)
    """Decays of Adam's two moments."""
    weight_decay: float = 0.0
    """Weight decay of Adam."""
    gradient_norm: float | None = 1.0
    """Norm to which longer gradients are shortened; None leaves them unchanged."""
    ema_decay: float | None = None
    """Decay of the exponential moving average of the weights, the result of a stage; None takes the
    weights of the last step."""
    precision: Precision = "float32"
    """Type of the convolutions."""


@dataclass(frozen=True, kw_only=True)
class StageRecipe(ABC):
    """What every stage of a training has.

    Raises:
        RecipeError: A number is out of range.
    """

    steps: int
    """Number of optimizer steps."""
    batch: int
    """Number of samples in a step."""
    learning_rate: float
    """Largest learning rate, in (0, 1); see `rate`."""

    def __post_init__(self) -> None:
        """Require numbers in range."""
        require_counts(self, "steps")
        require_counts(self, "batch", most=MAX_BATCH)
        if not 0 < self.learning_rate < 1:
            raise RecipeError(f"learning_rate must lie in (0, 1), got {self.learning_rate!r}")

    @property
    @abstractmethod
    def optimization(self) -> Optimization:
        """The rest of the optimizer's settings."""

    @abstractmethod
    def rate(self, step: int) -> float:
        """Return the learning rate of the step after `step` steps."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe(ABC):
    """What recipes of every kind have.

    Raises:
        RecipeError: A setting is out of range.
    """

    uses_images: ClassVar[bool] = True
    """Whether the recipe has `data`."""
    tables: ClassVar[frozenset[str]] = frozenset()
    """Names of tables that are no fields; `from_tables` reads them."""

    name: str
    """Name of the recipe, by default that of its file."""
    folder: Path
    """Folder of the recipe file, to which its paths are relative."""
    data: tuple[Path, ...] = ()
    """Folders of HR images, as absolute paths."""
    seed: int = 0
    """Seed of all random numbers, 0 to `MAX_SEED`."""
    log_every: int = 50
    """Number of steps between lines of the log."""
    save_every: int = 500
    """Number of steps between saved states."""

    def __post_init__(self) -> None:
        """Require numbers in range."""
        require_counts(self, "log_every", "save_every")
        require_counts(self, "seed", least=0, most=MAX_SEED)

    @property
    @abstractmethod
    def stage_recipes(self) -> dict[str, StageRecipe]:
        """Stages by name, in training order."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings other than seed and stages that determine the result, as JSON values."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything except the images that determines the result of the run, as JSON values."""
        stages = {name: asdict(stage) for name, stage in self.stage_recipes.items()}
        return {"seed": self.seed, **self.settings, "stages": stages}

    @classmethod
    def from_tables(cls, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG003 - for subclasses
        """Return the fields that annotations do not describe, by name.

        Args:
            values: All values of the file.
        """
        return {}


def read_recipe(
    kind: type[_Recipe], path: str | PathLike[str], data: tuple[Path, ...] = ()
) -> _Recipe:
    """Read a recipe of a known kind; `ikc_deploy.training.recipe_kinds` chooses it by the file.

    Args:
        kind: Class of the recipe.
        path: TOML file.
        data: Folders of HR images instead of the recipe's; empty for the recipe's own.

    Raises:
        RecipeError: A setting is missing, unknown or invalid; the message names it and the file.
    """
    file = Path(path)
    values = recipe_values(file)
    try:
        return _parsed(kind, values, file, data)
    except (RecipeError, CheckpointError, SettingError) as error:
        raise RecipeError(f"in the recipe '{file}': {error}") from error


def recipe_values(file: Path) -> dict[str, Any]:
    """Return the values of a recipe file.

    Raises:
        RecipeError: The file is missing or not valid TOML.
    """
    try:
        return read_toml(file, "recipe")
    except SettingError as error:
        raise RecipeError(str(error)) from error


def _parsed(
    kind: type[_Recipe], values: dict[str, Any], file: Path, data: tuple[Path, ...]
) -> _Recipe:
    hints = get_type_hints(kind, include_extras=True)
    given: dict[str, Any] = {"name": file.stem, "folder": real_path(file).parent}
    settings = {field.name: field for field in fields(kind) if field.name not in _NOT_IN_FILES}
    if not kind.uses_images:
        del settings["data"]
        if data:
            raise RecipeError("it trains without images; omit --data")
    needed = {
        name
        for name, field in settings.items()
        if field.default is MISSING and field.default_factory is MISSING and name not in given
    }
    check_names(values, {"kind", *settings, *kind.tables}, sorted(needed))
    if kind.uses_images:
        given["data"] = _image_folders(values.get("data", []), file, data)
    given |= kind.from_tables(values)
    for name in settings.keys() & values.keys() - (given.keys() - {"name"}):
        given[name] = _parsed_field(hints[name], values[name], name)
    return kind(**given)


def _parsed_field(hint: Any, value: Any, name: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (choice for choice in get_args(hint) if choice is not type(None))
    if isinstance(hint, type) and is_dataclass(hint):
        return parse_settings(hint, value, name)
    return typed(hint, value, name)


def _image_folders(listed: Any, file: Path, data: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return absolute paths of `data` instead of `listed`: image sets, or paths."""
    entries = typed(tuple[PathText, ...], listed, "data")
    for entry in (*entries, *map(str, data)):
        require_path("data", entry)
    folder = real_path(file).parent
    folders = tuple(map(real_path, data)) or tuple(
        require_image_set(entry) if is_name(entry) else real_path(folder / entry)
        for entry in entries
    )
    if not folders:
        raise RecipeError("no training images: set 'data' to folders of HR images")
    return folders


def parse_settings(kind: type[_Settings], values: Any, table: str) -> _Settings:
    """Return settings of the dataclass `kind` from the values of a TOML `table`.

    Raises:
        RecipeError: A setting is missing, unknown or invalid; the message names the table.
    """
    try:
        return read_settings(kind, values)
    except SettingError as error:
        raise RecipeError(f"[{table}] {error}") from None


def require_counts(settings: object, *names: str, least: int = 1, most: int = MAX_COUNT) -> None:
    """Raise `RecipeError` unless the named settings are integers from `least` to `most`."""
    for name in names:
        value = getattr(settings, name)
        if type(value) is not int or not least <= value <= most:
            raise RecipeError(
                f"{name} must be a whole number from {least} to {most}, got {shown(value)}"
            )


def require_path(name: str, path: str) -> None:
    """Raise `RecipeError` unless the setting can be a path: not empty, no NUL, not too long."""
    try:
        Path(path).exists()
        possible = bool(path) and "\0" not in path
    except (OSError, ValueError):
        possible = False
    if not possible:
        raise RecipeError(f"{name} must be a path, got {shown(path)}")
