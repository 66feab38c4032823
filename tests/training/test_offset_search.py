from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import SinglePredictor
from ikc_deploy.training.batches import Batch, BatchSource
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.loop_recipe import LoopRecipe
from ikc_deploy.training.offset_search import search_offset
from ikc_deploy.training.recipes import read_recipe
from ikc_deploy.training.stage_context import StageContext
from tests.samples import photo, small_architecture

CPU = torch.device("cpu")


def context_of(
    repository: Path, monkeypatch: pytest.MonkeyPatch, best: float
) -> StageContext[IkcNetworks]:
    """F makes perfect images where sigma is `best` pixels above what P reads at first."""
    recipe = read_recipe(LoopRecipe, repository / "training" / "smoke.toml", (repository,))
    recipe = dataclasses.replace(recipe, architecture=small_architecture("film"))
    networks = new_networks(recipe.architecture, 0)
    networks.freeze()
    predictor = networks.predictor
    assert isinstance(predictor, SinglePredictor)
    # Readings in the middle of the range, where no code is limited.
    for parameter in predictor.head.parameters():
        parameter.zero_()
    source = BatchSource(CropSource([photo(60, 70)]), networks, recipe, "predictor", CPU)
    drawn: list[Batch] = []
    batch_of = source.batch

    def batch(step: int) -> Batch:
        drawn.append(batch_of(step))
        return drawn[-1]

    def unclamped(lr: Tensor, code: Tensor) -> Tensor:
        wrong = (predictor.chart.kernel_parameters(code)[:, 0] - 2.1 - best).abs()
        # Towards grey, so that no clamp hides the error.
        hr = drawn[-1].hr
        return hr + (0.5 - hr) * wrong[:, None, None, None].clamp(max=1.0)

    monkeypatch.setattr(source, "batch", batch)
    monkeypatch.setattr(networks.sftmd, "unclamped", unclamped)
    stage = dataclasses.replace(recipe.stages["predictor"], batch=64)
    return StageContext(networks, source, stage, CPU)


@pytest.mark.parametrize(("best", "chosen"), [(0.0, 0.0), (-0.06, 0.06), (-0.5, 0.16), (0.2, 0.0)])
def test_p_is_shifted_to_the_best_images(
    repository: Path, monkeypatch: pytest.MonkeyPatch, best: float, chosen: float
) -> None:
    context = context_of(repository, monkeypatch, best)
    figures = search_offset(context)
    assert figures["offset"] == pytest.approx(chosen)
    gains = {name: gain for name, gain in figures.items() if name.startswith("gain_at_")}
    assert max(gains, key=gains.__getitem__) == f"gain_at_{chosen / 4:g}"
    predictor = context.networks.predictor
    assert isinstance(predictor, SinglePredictor)
    sigma = predictor.estimates(torch.rand(2, 3, 12, 12))[0]
    torch.testing.assert_close(sigma, torch.full((2, 1), 2.1 - chosen))


def test_a_design_that_reads_no_sigma_is_left_alone(repository: Path) -> None:
    recipe = read_recipe(LoopRecipe, repository / "training" / "smoke.toml", (repository,))
    recipe = dataclasses.replace(recipe, architecture=small_architecture("reference"))
    networks = new_networks(recipe.architecture, 0)
    source = BatchSource(CropSource([photo(60, 70)]), networks, recipe, "predictor", CPU)
    context = StageContext(networks, source, recipe.stages["predictor"], CPU)
    assert search_offset(context) == {}
