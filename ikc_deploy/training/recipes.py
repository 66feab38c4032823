"""Training recipes: TOML files, read into frozen settings and checked before training starts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from ikc_deploy import toml_settings
from ikc_deploy.errors import CheckpointError, RecipeError
from ikc_deploy.files import real_path
from ikc_deploy.kernels import KERNEL_SIZE
from ikc_deploy.loops import DAN, IKC, LOOPS
from ikc_deploy.networks.architecture import Architecture, architecture
from ikc_deploy.text import shown
from ikc_deploy.toml_settings import SettingError
from ikc_deploy.training.image_set_names import is_name, require_image_set

Precision = Literal["float32", "bfloat16"]
ImageLoss = Literal["l1", "mse"]
_Settings = TypeVar("_Settings")

REQUIRED_STAGES: Final[dict[str, tuple[str, ...]]] = {
    IKC.name: ("predictor", "sftmd", "corrector"),
    DAN.name: ("dan",),
}
"""Names of the stages of every loop, in training order."""
OPTIONAL_STAGES: Final[dict[str, tuple[str, ...]]] = {IKC.name: ("joint",), DAN.name: ()}
"""Names of the stages that may follow."""

MAX_BATCH: Final = 65_536
MAX_UNROLL: Final = 1_000
MAX_COUNT: Final = 10**9
"""Largest number of steps, or of anything else that is counted: centuries of training."""
MAX_SEED: Final = 2**32 - 1
"""Largest seed of a recipe; larger ones are for held-out data."""


@dataclass(frozen=True)
class StageRecipe:
    """The settings of one stage.

    Raises:
        RecipeError: A setting is out of range.
    """

    steps: int
    """Number of optimizer steps."""
    batch: int
    """Number of crops in a step."""
    patch: int
    """Side of a crop in LR pixels."""
    learning_rate: float
    """Peak learning rate, in (0, 1); see `ikc_deploy.training.trainer.learning_rate`."""
    warmup: int = 200
    """Number of steps of the linear warm-up."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights, the result of a stage; in [0, 1)."""
    unroll: int = 4
    """Number of successive corrections that `corrector` trains on; `joint` trains on a random one
    of them; `dan` on the last of so many iterations of Restorer and Estimator; other stages ignore
    it."""
    random_start_share: float = 0.1
    """Share of the batch that starts at a random code in `corrector`, and at the true code in
    `joint`, instead of P's; in [0, 1]."""
    cooldown: float = 1.0
    """Share of the steps, at the end, in which the learning rate falls by a half cosine, in (0, 1];
    before, it is constant."""
    loss: ImageLoss = "l1"
    """Loss that `sftmd` and `dan` minimise on RGB in [0,1]."""
    predicted_share: float = 0.0
    """Share of the batch for which `sftmd` gets P's code instead of the true one; in [0, 1]."""
    precision: Precision = "float32"
    """Type of the convolutions. P reads sigma less exactly if it is trained in bfloat16."""

    def __post_init__(self) -> None:
        """Require numbers in range and shares in [0, 1]."""
        require_counts(self, "steps", "patch")
        require_counts(self, "batch", most=MAX_BATCH)
        require_counts(self, "unroll", most=MAX_UNROLL)
        require_counts(self, "warmup", least=0)
        if not 0 < self.learning_rate < 1:
            raise RecipeError(f"learning_rate must lie in (0, 1), got {self.learning_rate!r}")
        if not 0 <= self.ema_decay < 1:
            raise RecipeError(f"ema_decay must lie in [0, 1), got {self.ema_decay!r}")
        for name in ("random_start_share", "predicted_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}")
        if not 0 < self.cooldown <= 1:
            raise RecipeError(f"cooldown must lie in (0, 1], got {self.cooldown!r}")

    @property
    def stable_steps(self) -> int:
        """Number of steps before the learning rate begins to fall."""
        return self.steps - round(self.cooldown * self.steps)


@dataclass(frozen=True)
class ValidationRecipe:
    """The settings of a small measurement like Gaussian8 in the log while training.

    Raises:
        RecipeError: A number is out of range, or there is no sigma.
    """

    folder: str
    """Name of an image set, or folder of HR images relative to the recipe file. If it is missing,
    validation is off."""
    sigmas: tuple[float, ...]
    """Sigmas of the blurs in HR pixels."""
    every: int
    """Number of steps between validations; the end of each stage is always validated."""
    iters: int = 7
    """Number of updates of the code."""

    def __post_init__(self) -> None:
        """Require numbers in range, a folder and at least one sigma."""
        require_counts(self, "every")
        require_counts(self, "iters", most=MAX_UNROLL)
        require_path("folder", self.folder)
        if not self.sigmas:
            raise RecipeError("sigmas must be a list of at least one number, got []")


@dataclass(frozen=True)
class CropRecipe:
    """The selection of crops; by default every image and position is equally probable.

    Raises:
        RecipeError: A number is out of range.
    """

    candidates: int = 1
    """Number of crops drawn for each one that is used, the most detailed of them."""
    area_weight: float = 0.0
    """Exponent of the number of pixels in the probability of an image, in [0, 1]: with 0 all images
    are equally probable, with 1 all pixels."""
    halved_from: int | None = None
    """Smallest short side in pixels of images that are used a second time at half size, where they
    are sharper and less compressed; None for none."""

    def __post_init__(self) -> None:
        """Require at least one candidate and a weight in [0, 1]."""
        require_counts(self, "candidates")
        if not 0 <= self.area_weight <= 1:
            raise RecipeError(f"area_weight must lie in [0, 1], got {self.area_weight!r}")
        if self.halved_from is not None:
            require_counts(self, "halved_from")


@dataclass(frozen=True)
class DegradationRecipe:
    """The degradation of LR images after blur and shrinking; by default none.

    Raises:
        RecipeError: A number is out of range.
    """

    noise: float = 0.0
    """Largest sigma of additive Gaussian noise in 8-bit levels; uniform from 0 for each image."""
    jpeg: tuple[int, int] | None = None
    """Lowest and highest JPEG quality, 1 to 100, uniform for each image; None for no JPEG."""
    share: float = 1.0
    """Share of the images with noise and, independently, of compressed images; in (0, 1]."""

    def __post_init__(self) -> None:
        """Require a share in (0, 1], noise in [0, 255] levels and JPEG qualities of 1 to 100."""
        if not 0 < self.share <= 1:
            raise RecipeError(f"share must lie in (0, 1], got {self.share!r}")
        if not 0 <= self.noise <= 255:
            raise RecipeError(f"noise must lie in [0, 255] levels, got {self.noise!r}")
        if self.jpeg is not None and not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise RecipeError(
                f"jpeg needs 1 <= lowest <= highest <= 100, got {shown(list(self.jpeg))}"
            )


@dataclass(frozen=True)
class Recipe:
    """One training run of the networks of a loop.

    Raises:
        RecipeError: A setting is out of range.
    """

    name: str
    """Name of the recipe, by default that of its file."""
    architecture: Architecture
    """Architecture of the networks."""
    data: tuple[Path, ...]
    """Folders of HR images, as absolute paths."""
    crops: CropRecipe
    """Selection of the crops."""
    stages: dict[str, StageRecipe]
    """Stages of the loop by name, in training order; see `ikc_deploy.training.stages`."""
    degradation: DegradationRecipe
    """Degradation of LR images after blur and shrinking."""
    init_from: str | None
    """Initial weights instead of random ones: a checkpoint, relative to the recipe, or the name of
    shipped weights, of the same design. Tensors of other shapes start at random; a warning names
    them."""
    seed: int
    """Seed of random weights and batches, 0 to `MAX_SEED`."""
    compile: bool
    """Whether torch.compile compiles the blocks of F or of the Restorer: worth its start-up time on
    a GPU."""
    log_every: int
    """Number of steps between lines of the log."""
    save_every: int
    """Number of steps between saved states."""
    validation: ValidationRecipe | None
    """Measurement in the log; None for none."""
    folder: Path
    """Folder of the recipe file, to which its paths are relative."""

    def __post_init__(self) -> None:
        """Require the loop's stages, patches that kernels fit into, and sigmas of the range."""
        _require_stages(self.stages, self.architecture, started=self.init_from is not None)
        require_counts(self, "log_every", "save_every")
        require_counts(self, "seed", least=0, most=MAX_SEED)
        if self.init_from is not None:
            require_path("init_from", self.init_from)
        scale, (low, high) = self.architecture.scale, self.architecture.sigma_range
        # The networks of IKC have kernels of one size.
        kernel = self.architecture.kernel_size if self.architecture.loop is DAN else KERNEL_SIZE
        reach = kernel // 2
        for name, stage in self.stages.items():
            if stage.patch * scale <= reach:
                raise RecipeError(
                    f"[{name}] patch must be at least {reach // scale + 1}, got {stage.patch}: "
                    f"{stage.patch * scale} HR pixels cannot be blurred with a kernel of "
                    f"{kernel}"
                )
        if self.validation and not all(low <= sigma <= high for sigma in self.validation.sigmas):
            raise RecipeError(
                f"[validation] sigmas must lie in [{low:g}, {high:g}], the architecture's range, "
                f"got {shown(list(self.validation.sigmas))}"
            )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Settings that determine the result of the run."""
        return {
            "architecture": self.architecture.to_dict(),
            "seed": self.seed,
            "start": self.init_from,
            "degradation": asdict(self.degradation),
            "crops": asdict(self.crops),
            "stages": {name: asdict(stage) for name, stage in self.stages.items()},
        }


def load_recipe(path: str | PathLike[str], data: tuple[Path, ...] = ()) -> Recipe:
    """Read a recipe for the networks of a loop, IKC or DAN.

    Args:
        path: TOML file.
        data: Folders of HR images instead of the recipe's; empty for the recipe's own.

    Raises:
        RecipeError: A setting is missing, unknown or invalid; the message names it and the file.
    """
    file = Path(path)
    values = read_toml(file)
    try:
        return _parse(values, file, data)
    except (RecipeError, CheckpointError) as error:
        raise RecipeError(f"in the recipe '{file}': {error}") from error


def read_toml(file: Path) -> dict[str, Any]:
    """Return the values of a recipe file.

    Raises:
        RecipeError: The file is missing or not valid TOML.
    """
    try:
        return toml_settings.read_toml(file, "recipe")
    except SettingError as error:
        raise RecipeError(str(error)) from error


def image_folders(listed: Any, file: Path, data: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the folders of HR images as absolute paths.

    Args:
        listed: Value of `data` in the recipe: names of image sets, or paths relative to its folder.
        file: Recipe file.
        data: Folders instead of the recipe's; empty for the recipe's own.

    Raises:
        RecipeError: There are no folders, a value is not a path, or an image set is not found.
    """
    entries = parse_value(tuple[str, ...], listed, "data")
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


def _parse(values: dict[str, Any], file: Path, data: tuple[Path, ...]) -> Recipe:
    known = {"kind", "name", "architecture", "init_from", "data", "seed", "compile"}
    known |= {"log_every", "save_every", "degradation", "validation", "crops"}
    stages = {name for loop in LOOPS for name in stage_names(loop)}
    require_names(values, known | stages, {"architecture"})
    settings = _architecture(values["architecture"])
    _require_stages(stages & set(values), settings, started="init_from" in values)
    _require_kind(values.get("kind", settings.loop.name), settings)
    validation = values.get("validation")
    return Recipe(
        name=parse_value(str, values.get("name", file.stem), "name"),
        architecture=settings,
        data=image_folders(values.get("data", []), file, data),
        crops=parse_settings(CropRecipe, values.get("crops", {}), "crops"),
        stages={
            name: parse_settings(StageRecipe, values[name], name)
            for name in stage_names(settings.loop.name)
            if name in values
        },
        degradation=parse_settings(DegradationRecipe, values.get("degradation", {}), "degradation"),
        init_from=parse_value(str, values["init_from"], "init_from")
        if "init_from" in values
        else None,
        seed=parse_value(int, values.get("seed", 0), "seed"),
        compile=parse_value(bool, values.get("compile", False), "compile"),
        log_every=parse_value(int, values.get("log_every", 50), "log_every"),
        save_every=parse_value(int, values.get("save_every", 500), "save_every"),
        validation=(
            parse_settings(ValidationRecipe, validation, "validation")
            if "validation" in values
            else None
        ),
        folder=real_path(file).parent,
    )


def stage_names(loop: str) -> tuple[str, ...]:
    """Return the names of all stages of a loop, in training order."""
    return REQUIRED_STAGES[loop] + OPTIONAL_STAGES[loop]


def _require_stages(given: Collection[str], settings: Architecture, *, started: bool) -> None:
    """Require the stages of the architecture's loop, or one if the weights are `started` before."""
    loop = settings.loop.name
    foreign = sorted(set(given) - set(stage_names(loop)))
    if foreign:
        raise RecipeError(
            f"[{foreign[0]}] is no stage of the method '{loop}', of which architecture "
            f"{shown(settings.name)} is; its stages are {', '.join(stage_names(loop))}"
        )
    missing = [name for name in REQUIRED_STAGES[loop] if name not in given]
    if missing and not (started and given):
        raise RecipeError(
            f"missing: {', '.join(missing)} (stages of the method '{loop}', to which the "
            "architecture belongs)"
        )


def _require_kind(kind: object, settings: Architecture) -> None:
    if kind != settings.loop.name:
        raise RecipeError(
            f"kind is {shown(kind)}, but the architecture is one of '{settings.loop.name}'; "
            "omit kind"
        )


def _architecture(value: Any) -> Architecture:
    if isinstance(value, str):
        return architecture(value)
    if not isinstance(value, dict):
        raise RecipeError(f"architecture must be a name or a table, got {shown(value)}")
    try:
        return Architecture.from_dict(value)
    except CheckpointError as error:
        raise RecipeError(f"[architecture] {error}") from None


def parse_settings(kind: type[_Settings], values: Any, table: str) -> _Settings:
    """Return settings of the dataclass `kind` from the values of a TOML `table`.

    Raises:
        RecipeError: A setting is missing, unknown or invalid; the message names the table.
    """
    try:
        return toml_settings.read_settings(kind, values)
    except (SettingError, RecipeError, CheckpointError) as error:
        raise RecipeError(f"[{table}] {error}") from None


def parse_value(hint: Any, value: Any, name: str) -> Any:
    """Return a setting as the type `hint`.

    Raises:
        RecipeError: The value has another type; the message names the setting.
    """
    try:
        return toml_settings.typed(hint, value, name)
    except SettingError as error:
        raise RecipeError(str(error)) from None


def require_names(values: dict[str, Any], known: set[str], required: set[str]) -> None:
    """Raise `RecipeError` unless `values` have all `required` settings and no unknown ones."""
    try:
        toml_settings.refuse_unknown(values, known)
    except SettingError as error:
        raise RecipeError(str(error)) from None
    missing = sorted(required - set(values))
    if missing:
        raise RecipeError(f"missing: {', '.join(missing)}")


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
