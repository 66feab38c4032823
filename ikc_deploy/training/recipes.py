"""Training recipes: TOML files read into frozen settings, checked before anything starts."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ikc_deploy.errors import CheckpointError, RecipeError
from ikc_deploy.kernels import KERNEL_SIZE
from ikc_deploy.networks.architecture import Architecture, architecture

Precision = Literal["float32", "bfloat16"]
ImageLoss = Literal["l1", "mse"]
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
    """Corrections in a row that `corrector` trains on; `joint` trains on one of them, drawn at
    random; other stages ignore it."""
    explore: float = 0.1
    """Share of the batch that `corrector` starts at a random code, and `joint` at the true one,
    instead of P's."""
    cooldown: float = 1.0
    """Share of the steps, at the end, over which the learning rate falls by a half cosine; before,
    it is constant. Below 1 a run may be resumed with more steps before its cooldown."""
    loss: ImageLoss = "l1"
    """What `sftmd` minimises on RGB in [0,1]."""

    def __post_init__(self) -> None:
        require_counts(self, "steps", "batch", "patch", "unroll")
        if not is_number(self.learning_rate) or not 0 < self.learning_rate < 1:
            raise RecipeError(f"learning_rate must lie in (0, 1), got {self.learning_rate!r}")
        if not is_number(self.ema_decay) or not 0 <= self.ema_decay < 1:
            raise RecipeError(f"ema_decay must lie in [0, 1), got {self.ema_decay!r}")
        if not is_number(self.explore) or not 0 <= self.explore <= 1:
            raise RecipeError(f"explore must lie in [0, 1], got {self.explore!r}")
        if not isinstance(self.warmup, int) or self.warmup < 0:
            raise RecipeError(f"warmup must be a whole number of at least 0, got {self.warmup!r}")
        if not is_number(self.cooldown) or not 0 < self.cooldown <= 1:
            raise RecipeError(f"cooldown must lie in (0, 1], got {self.cooldown!r}")
        if self.loss not in get_args(ImageLoss):
            raise RecipeError(f"loss must be one of {list(get_args(ImageLoss))}, got {self.loss!r}")

    @property
    def stable_steps(self) -> int:
        """Steps before the learning rate begins to fall."""
        return self.steps - round(self.cooldown * self.steps)


@dataclass(frozen=True)
class ValidationRecipe:
    """A small Gaussian8-like measurement in the log while training."""

    folder: str
    """HR images, relative to the recipe file. A missing folder switches validation off."""
    sigmas: tuple[float, ...]
    every: int
    """Steps between validations; the end of each stage is always validated."""
    iters: int = 7

    def __post_init__(self) -> None:
        require_counts(self, "every", "iters")
        if not isinstance(self.folder, str):
            raise RecipeError(f"folder must be a path, got {self.folder!r}")
        if not isinstance(self.sigmas, tuple) or not all(map(is_number, self.sigmas)):
            raise RecipeError(f"sigmas must be a list of numbers, got {self.sigmas!r}")


@dataclass(frozen=True)
class CropRecipe:
    """Which crops of the images are drawn; by default all alike."""

    candidates: int = 1
    """Crops drawn for each one that is taken, which is the most detailed of them."""
    area_weight: float = 0.0
    """An image is drawn in proportion to its pixels to this power: 0 for all images alike, 1 for
    all pixels alike."""
    halved_from: int | None = None
    """Images whose short side has at least this many pixels are there a second time at half size,
    free of their compression and sharper; None for none."""

    def __post_init__(self) -> None:
        require_counts(self, "candidates")
        if not is_number(self.area_weight) or not 0 <= self.area_weight <= 1:
            raise RecipeError(f"area_weight must lie in [0, 1], got {self.area_weight!r}")
        if self.halved_from is not None:
            require_counts(self, "halved_from")


@dataclass(frozen=True)
class DegradationRecipe:
    """What happens to the LR image after blur and shrinking; nothing by default."""

    noise: float = 0.0
    """Largest sigma of additive Gaussian noise, in 8-bit levels; uniform from 0 for each image."""
    jpeg: tuple[int, int] | None = None
    """Lowest and highest JPEG quality, uniform for each image."""
    share: float = 1.0
    """Share of the images that get noise, and independently the share that is compressed."""

    def __post_init__(self) -> None:
        if not is_number(self.share) or not 0 < self.share <= 1:
            raise RecipeError(f"share must lie in (0, 1], got {self.share!r}")
        if not is_number(self.noise) or not 0 <= self.noise <= 255:
            raise RecipeError(f"noise must lie in [0, 255] levels, got {self.noise!r}")
        if self.jpeg is None:
            return
        try:
            low, high = self.jpeg
        except (TypeError, ValueError):
            raise RecipeError(f"jpeg must be [lowest, highest], got {self.jpeg!r}") from None
        if not all(isinstance(q, int) for q in (low, high)) or not 1 <= low <= high <= 100:
            raise RecipeError(f"jpeg needs 1 <= lowest <= highest <= 100, got {self.jpeg!r}")


@dataclass(frozen=True)
class Recipe:
    """One training run: stages in the order sftmd, predictor, corrector, joint."""

    name: str
    architecture: Architecture
    data: tuple[Path, ...]
    """Folders of HR images, as absolute paths."""
    crops: CropRecipe
    sftmd: StageRecipe
    predictor: StageRecipe
    corrector: StageRecipe
    joint: StageRecipe | None
    """Fine-tuning of all three networks on the images of the loop; optional."""
    degradation: DegradationRecipe
    start: str | None
    """Weights to start from instead of random ones: a checkpoint, relative to the recipe, or the
    name of shipped weights. Tensors of other shapes start at random."""
    seed: int
    precision: Precision
    compile: bool
    """Whether torch.compile makes the networks faster; worth its start-up in runs of hours."""
    log_every: int
    save_every: int
    validation: ValidationRecipe | None
    folder: Path
    """Where the recipe lies: relative folders start here."""

    def __post_init__(self) -> None:
        require_counts(self, "log_every", "save_every")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise RecipeError(f"seed must be a whole number of at least 0, got {self.seed!r}")
        scale, (low, high) = self.architecture.scale, self.architecture.sigma_range
        reach = KERNEL_SIZE // 2
        for name, stage in self.stages.items():
            if stage.patch * scale <= reach:
                raise RecipeError(
                    f"[{name}] patch {stage.patch} is {stage.patch * scale} HR pixels, too few to "
                    f"blur with a kernel of {KERNEL_SIZE}; take at least {reach // scale + 1}"
                )
        if self.validation and not all(low <= sigma <= high for sigma in self.validation.sigmas):
            raise RecipeError(
                f"[validation] sigmas must lie in [{low:g}, {high:g}], the architecture's range"
            )

    @property
    def stages(self) -> dict[str, StageRecipe]:
        """The stages by name, in training order."""
        stages = {"sftmd": self.sftmd, "predictor": self.predictor, "corrector": self.corrector}
        return stages if self.joint is None else stages | {"joint": self.joint}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings that decide what is computed."""
        return {
            "architecture": self.architecture.to_dict(),
            "seed": self.seed,
            "start": self.start,
            "precision": self.precision,
            "degradation": asdict(self.degradation),
            "crops": asdict(self.crops),
            "stages": {name: asdict(stage) for name, stage in self.stages.items()},
        }


def load_recipe(path: str | PathLike[str], data: tuple[Path, ...] = ()) -> Recipe:
    """Read a recipe; `data` replaces the recipe's folders of training images.

    Raises `RecipeError` naming the file and the setting that is missing, unknown or impossible.
    """
    file = Path(path)
    values = read_toml(file)
    try:
        return _parse(values, file, data)
    except (RecipeError, CheckpointError) as error:
        raise RecipeError(f"in the recipe '{file}': {error}") from error


def read_toml(file: Path) -> dict[str, Any]:
    """The values of a recipe file. Raises `RecipeError` if it is missing or no TOML."""
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe at '{file}'") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"'{file}' is not valid TOML: {error}") from error


def image_folders(listed: Any, file: Path, data: tuple[Path, ...]) -> tuple[Path, ...]:
    """Folders of HR images: `data`, or else those that the recipe `file` lists."""
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise RecipeError(f"data must be a list of folders, got {listed!r}")
    folder = file.resolve().parent
    folders = tuple(path.resolve() for path in data) or tuple(
        (folder / entry).resolve() for entry in listed
    )
    if not folders:
        raise RecipeError("no training images: set 'data' to folders of HR images")
    return folders


def _parse(values: dict[str, Any], file: Path, data: tuple[Path, ...]) -> Recipe:
    known = {"name", "architecture", "start", "data", "seed", "precision", "compile"}
    known |= {"log_every", "save_every", "degradation", "validation", "crops"}
    known |= {"sftmd", "predictor", "corrector", "joint"}
    _refuse_unknown(values, known)
    missing = sorted({"architecture", "sftmd", "predictor", "corrector"} - set(values))
    if missing:
        raise RecipeError(f"missing: {', '.join(missing)}")
    precision = values.get("precision", "float32")
    if precision not in get_args(Precision):
        raise RecipeError(f"precision must be one of {list(get_args(Precision))}")
    folders = image_folders(values.get("data", []), file, data)
    if not isinstance(values.get("compile", False), bool):
        raise RecipeError(f"compile must be true or false, got {values['compile']!r}")
    if not isinstance(values.get("start", ""), str):
        raise RecipeError(f"start must be a name or a path, got {values['start']!r}")
    joint, validation = values.get("joint"), values.get("validation")
    return Recipe(
        name=values.get("name", file.stem),
        architecture=_architecture(values["architecture"]),
        data=folders,
        crops=parse_settings(CropRecipe, values.get("crops", {}), "crops"),
        sftmd=parse_settings(StageRecipe, values["sftmd"], "sftmd"),
        predictor=parse_settings(StageRecipe, values["predictor"], "predictor"),
        corrector=parse_settings(StageRecipe, values["corrector"], "corrector"),
        joint=joint and parse_settings(StageRecipe, joint, "joint"),
        degradation=parse_settings(DegradationRecipe, values.get("degradation", {}), "degradation"),
        start=values.get("start"),
        seed=values.get("seed", 0),
        precision=precision,
        compile=values.get("compile", False),
        log_every=values.get("log_every", 50),
        save_every=values.get("save_every", 500),
        validation=validation and parse_settings(ValidationRecipe, validation, "validation"),
        folder=file.resolve().parent,
    )


def _architecture(value: Any) -> Architecture:
    if isinstance(value, str):
        return architecture(value)
    if isinstance(value, dict):
        return Architecture.from_dict(value)
    raise RecipeError(f"architecture must be a name or a table, got {value!r}")


def parse_settings(kind: type[_Settings], values: Any, table: str) -> _Settings:
    """Settings of this kind from a TOML `table`. Raises `RecipeError` that names it."""
    if not isinstance(values, dict):
        raise RecipeError(f"[{table}] must be a table, got {values!r}")
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    required = {f.name for f in fields(kind) if f.default is MISSING}  # type: ignore[arg-type]
    _refuse_unknown(values, known, table)
    missing = sorted(required - set(values))
    if missing:
        raise RecipeError(f"[{table}] misses {', '.join(missing)}")
    try:
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    except RecipeError as error:
        raise RecipeError(f"[{table}] {error}") from None


def _refuse_unknown(values: dict[str, Any], known: set[str], table: str = "") -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        where = f"[{table}] has" if table else "it has"
        raise RecipeError(
            f"{where} unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def require_counts(settings: object, *names: str) -> None:
    """Raise `RecipeError` unless the named settings are positive integers."""
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RecipeError(f"{name} must be a positive integer, got {value!r}")


def is_number(value: object) -> bool:
    """Whether it is a real number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
