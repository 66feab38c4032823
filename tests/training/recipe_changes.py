"""Changes of recipes that several test modules make."""

from __future__ import annotations

import dataclasses

from ikc_deploy.training.loop_recipe import LoopRecipe, LoopStageRecipe


def with_stages(recipe: LoopRecipe, **stages: LoopStageRecipe | None) -> LoopRecipe:
    """The recipe with some stages replaced or added, or left out if None."""
    merged: dict[str, LoopStageRecipe | None] = {**recipe.stages, **stages}
    kept = {name: stage for name, stage in merged.items() if stage is not None}
    return dataclasses.replace(recipe, stages=kept)
