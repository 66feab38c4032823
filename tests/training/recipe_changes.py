"""Changes of recipes that several test modules make."""

from __future__ import annotations

import dataclasses

from ikc_deploy.training.recipes import Recipe, StageRecipe


def with_stages(recipe: Recipe, **stages: StageRecipe | None) -> Recipe:
    """The recipe with some stages replaced or added, or left out if None."""
    merged: dict[str, StageRecipe | None] = {**recipe.stages, **stages}
    kept = {name: stage for name, stage in merged.items() if stage is not None}
    return dataclasses.replace(recipe, stages=kept)
