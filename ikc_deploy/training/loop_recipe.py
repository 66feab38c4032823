"""Recipes for the networks of a loop, IKC or DAN."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Literal

from ikc_deploy.errors import CheckpointError, RecipeError
from ikc_deploy.kernels import KERNEL_SIZE
from ikc_deploy.loops import DAN, IKC, LOOPS
from ikc_deploy.networks.architecture import Architecture, architecture
from ikc_deploy.text import shown
from ikc_deploy.training.recipes import (
    Optimization,
    Precision,
    StageRecipe,
    TrainingRecipe,
    parse_settings,
    require_counts,
    require_path,
)
from ikc_deploy.typed_values import PathText

ImageLoss = Literal["l1", "mse"]

REQUIRED_STAGES: Final[dict[str, tuple[str, ...]]] = {
    IKC.name: ("predictor", "sftmd", "corrector"),
    DAN.name: ("dan",),
}
"""Names of the stages of every loop, in training order."""
OPTIONAL_STAGES: Final[dict[str, tuple[str, ...]]] = {IKC.name: ("joint",), DAN.name: ()}
"""Names of the stages that may follow."""

MAX_UNROLL: Final = 1_000
_FINAL_RATE: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class ImageStageRecipe(StageRecipe):
    """The settings of a stage that trains on crops of images.

    Raises:
        RecipeError: A setting is out of range.
    """

    patch: int
    """Side of a crop in LR pixels."""
    warmup: int = 200
    """Number of steps of the linear warm-up."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights, the result of a stage; in [0, 1)."""
    cooldown: float = 1.0
    """Share of the steps, at the end, in which the learning rate falls by a half cosine, in (0, 1];
    before, it is constant."""
    precision: Precision = "float32"
    """Type of the convolutions. P reads sigma less exactly if it is trained in bfloat16."""

    def __post_init__(self) -> None:
        """Require numbers in range."""
        super().__post_init__()
        require_counts(self, "patch")
        require_counts(self, "warmup", least=0)
        if not 0 <= self.ema_decay < 1:
            raise RecipeError(f"ema_decay must lie in [0, 1), got {self.ema_decay!r}")
        if not 0 < self.cooldown <= 1:
            raise RecipeError(f"cooldown must lie in (0, 1], got {self.cooldown!r}")

    @property
    def optimization(self) -> Optimization:
        """The rest of the optimizer's settings."""
        return Optimization(ema_decay=self.ema_decay, precision=self.precision)

    def rate(self, step: int) -> float:
        """Return the learning rate of the step after `step` steps.

        Linear warm-up, constant, then a half cosine down to a hundredth of the peak.
        """
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        stable = self.steps - round(self.cooldown * self.steps)
        turn = 0.5 * (1 + math.cos(math.pi * max(0, step - stable) / (self.steps - stable)))
        return self.learning_rate * warm * (_FINAL_RATE + (1 - _FINAL_RATE) * turn)


@dataclass(frozen=True, kw_only=True)
class LoopStageRecipe(ImageStageRecipe):
    """The settings of one stage of a loop.

    Raises:
        RecipeError: A setting is out of range.
    """

    unroll: int = 4
    """Number of successive corrections that `corrector` trains on; `joint` trains on a random one
    of them; `dan` on the last of so many iterations of Restorer and Estimator; other stages ignore
    it."""
    random_start_share: float = 0.1
    """Share of the batch that starts at a random code in `corrector`, and at the true code in
    `joint`, instead of P's; in [0, 1]."""
    loss: ImageLoss = "l1"
    """Loss that `sftmd` and `dan` minimise on RGB in [0,1]."""
    predicted_share: float = 0.0
    """Share of the batch for which `sftmd` gets P's code instead of the true one; in [0, 1]."""
    offset_search: bool = False
    """Whether `predictor` or `sftmd` ends with a search of the offset of P's sigma that gives the
    best images of F; round blur only. It needs a trained F."""

    def __post_init__(self) -> None:
        """Require numbers in range and shares in [0, 1]."""
        super().__post_init__()
        require_counts(self, "unroll", most=MAX_UNROLL)
        for name in ("random_start_share", "predicted_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} must lie in [0, 1], got {getattr(self, name)!r}")


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
    """The degradation of LR images after blur and downscaling; by default none.

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


@dataclass(frozen=True, kw_only=True)
class LoopRecipe(TrainingRecipe):
    """One training run of the networks of a loop.

    Raises:
        RecipeError: A setting is out of range.
    """

    tables: ClassVar[frozenset[str]] = frozenset(
        name for loop in LOOPS for name in REQUIRED_STAGES[loop] + OPTIONAL_STAGES[loop]
    )
    """Names of the stages of all loops."""

    architecture: Architecture
    """Architecture of the networks."""
    stages: dict[str, LoopStageRecipe]
    """Stages of the loop by name, in training order; see `ikc_deploy.training.stages`."""
    crops: CropRecipe = CropRecipe()
    """Selection of the crops."""
    degradation: DegradationRecipe = DegradationRecipe()
    """Degradation of LR images after blur and downscaling."""
    init_from: PathText | None = None
    """Initial weights instead of random ones: a checkpoint, relative to the recipe, or the name of
    shipped weights, of the same design. Tensors of other shapes start at random; a warning names
    them. With it, some stages are enough."""
    compile: bool = False
    """Whether torch.compile compiles the blocks of F or of the Restorer: worth its start-up time on
    a GPU."""
    validation: ValidationRecipe | None = None
    """Measurement in the log; None for none."""

    def __post_init__(self) -> None:
        """Require the loop's stages, patches that kernels fit into, and sigmas of the range."""
        super().__post_init__()
        _require_stages(self.stages, self.architecture, started=self.init_from is not None)
        if self.architecture.experts and self.init_from is None:
            raise RecipeError(
                "experts are trained one by one, each as the P of an architecture with experts = "
                "0, and joined (tools/join_experts.py); name the result with 'init_from'"
            )
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
    def stage_recipes(self) -> dict[str, StageRecipe]:
        """Stages by name, in training order."""
        return dict(self.stages)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings other than seed and stages that determine the result, as JSON values."""
        return {
            "architecture": self.architecture.to_dict(),
            "start": self.init_from,
            "degradation": asdict(self.degradation),
            "crops": asdict(self.crops),
        }

    @classmethod
    def from_tables(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the architecture, from its name or table, and the stages in training order."""
        settings = _architecture(values["architecture"])
        _require_stages(cls.tables & set(values), settings, started="init_from" in values)
        _require_kind(values.get("kind", settings.loop.name), settings)
        stages = {
            name: parse_settings(LoopStageRecipe, values[name], name)
            for name in stage_names(settings.loop.name)
            if name in values
        }
        return {"architecture": settings, "stages": stages}


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
