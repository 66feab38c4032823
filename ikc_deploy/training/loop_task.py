"""The training of a loop's networks, IKC's or DAN's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from ikc_deploy.kernels import KernelBasis
from ikc_deploy.networks.checkpoints import save_checkpoint, untrained_networks
from ikc_deploy.networks.dan import Dan1Restorer, Dan2Restorer
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.networks.sr_network import SrNetwork
from ikc_deploy.training.batches import BatchSource
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.image_sets import find_image_set, is_name
from ikc_deploy.training.init_from import started_networks
from ikc_deploy.training.loop_recipe import REQUIRED_STAGES, LoopRecipe
from ikc_deploy.training.runs import CHECKPOINT_FILE
from ikc_deploy.training.stage_context import StageContext
from ikc_deploy.training.stages import STAGES
from ikc_deploy.training.training_task import TrainingStage, TrainingTask
from ikc_deploy.training.validation import ValidationCase, load_cases, recommended_iters, validate

_NOT_RECORDED: Final = ("architecture", "crops")
"""Settings that a checkpoint has elsewhere, or that do not describe its networks."""

_LAST: Final = {loop: stages[-1] for loop, stages in REQUIRED_STAGES.items()}
"""Name of the last required stage of every loop, after which the whole loop is measured."""


class LoopTask(TrainingTask[LoopRecipe]):
    """The stages of a loop in order, on crops of images; the result is a checkpoint."""

    _networks: LoopNetworks
    _crops: CropSource
    _cases: list[ValidationCase]

    def build(self, basis: KernelBasis | None, *, resumed: bool) -> None:
        """Decode the images and create the networks, random ones or those of `init_from`.

        Args:
            basis: Basis of a saved state.
            resumed: Whether the weights of a saved state follow.

        Raises:
            CheckpointError: There are no weights as named in `init_from`, or they are damaged.
            InputError: The images are unusable.
            RecipeError: A crop is larger than all images, or the weights of `init_from` do not fit.
        """
        recipe = self.recipe
        self._crops = CropSource.from_folders(recipe.data, self.device, recipe.crops)
        for stage in recipe.stages.values():
            # Check now, not after hours of earlier stages.
            self._crops.at_least(stage.patch * recipe.architecture.scale)
        if recipe.init_from is None or resumed:
            self._networks = untrained_networks(recipe.architecture, recipe.seed, basis)
        else:
            self._networks = started_networks(
                recipe.architecture, recipe.seed, recipe.init_from, recipe.folder
            )
        self.basis = self._networks.basis
        for module in self.modules().values():
            module.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if recipe.compile and isinstance(module, SrNetwork | Dan1Restorer | Dan2Restorer):
                # All blocks share one compiled function, so this takes seconds instead of minutes.
                for block in module.residual_blocks:
                    block.compile()
        self._cases = _validation_cases(recipe) if self.processes.is_main else []
        if self._cases and recipe.validation is not None:
            self.validate_every = recipe.validation.every

    def modules(self) -> dict[str, nn.Module]:
        """Return the networks by the names of their graphs."""
        return self._networks.modules()

    def stage(self, name: str) -> TrainingStage:
        """Return a stage that begins."""
        source = BatchSource(
            self._crops, self._networks, self.recipe, name, self.device, self.processes
        )
        context: StageContext[Any] = StageContext(
            self._networks, source, self.recipe.stages[name], self.device, self.processes
        )
        return STAGES[name](context)

    def validate(self, stage: str) -> dict[str, float]:
        """Return PSNR and sigma errors on the images of the recipe's validation."""
        assert self.recipe.validation is not None
        iters = self.recipe.validation.iters
        return validate(self._networks, self._cases, stage, iters, self.device)

    def save_result(self, run: Path, record: dict[str, Any]) -> Path:
        """Write the checkpoint, input of `ikc-export`."""
        kept = {key: value for key, value in record.items() if key not in _NOT_RECORDED}
        if self._cases and self.recipe.validation is not None:
            iters = self.recipe.validation.iters
            figures = kept["last"][list(self.recipe.stages)[-1]]
            if f"step{iters}" not in figures:
                # The last stage measures less than the loop, which `init_from` has made complete.
                figures = self.validate(_LAST[self._networks.loop.name])
            kept["recommended_iters"] = recommended_iters(
                [figures[f"step{step}"] for step in range(iters + 1)]
            )
        self._networks.training = kept
        save_checkpoint(self._networks, run / CHECKPOINT_FILE)
        return run / CHECKPOINT_FILE


def _validation_cases(recipe: LoopRecipe) -> list[ValidationCase]:
    validation = recipe.validation
    if validation is None:
        return []
    name = validation.folder
    folder = find_image_set(name) if is_name(name) else recipe.folder / name
    if folder is None or not folder.is_dir():
        return []
    return load_cases(folder, validation.sigmas, recipe.architecture.scale)
