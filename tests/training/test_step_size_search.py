from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.corrector import StatisticsCorrector
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import SinglePredictor
from ikc_deploy.training.batches import Batch, BatchSource
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.loop_recipe import LoopRecipe
from ikc_deploy.training.recipes import read_recipe
from ikc_deploy.training.stage_context import StageContext
from ikc_deploy.training.step_size_search import STEP_SIZES, Gains, choose, search_step_size
from tests.samples import photo, small_architecture

CPU = torch.device("cpu")
CROPS = CropSource([photo(60, 70)])


class BlursByError(nn.Module):
    """An F whose image is darker than the HR one by how wrong its code is."""

    def __init__(self, place: StageContext[IkcNetworks]) -> None:
        super().__init__()
        self._batches: dict[bytes, Batch] = {}
        for step in range(place.settings.steps, place.settings.steps + 64):
            batch = place.source.batch(step)
            self._batches[batch.lr.numpy().tobytes()] = batch

    def unclamped(self, lr: Tensor, code: Tensor) -> Tensor:
        batch = self._batches[lr.numpy().tobytes()]
        wrong = (code - batch.code).abs().mean(dim=1)
        return batch.hr * (1 - wrong[:, None, None, None])


@pytest.fixture
def recipe(repository: Path) -> LoopRecipe:
    return read_recipe(LoopRecipe, repository / "training" / "smoke.toml", (repository,))


@pytest.mark.parametrize("corrected", ["towards", "away"])
def test_a_corrector_that_ruins_images_hardly_moves(
    recipe: LoopRecipe, monkeypatch: pytest.MonkeyPatch, corrected: str
) -> None:
    settings = small_architecture("compact")
    recipe = dataclasses.replace(recipe, architecture=settings)
    networks = new_networks(settings, seed=0)
    place = StageContext(
        networks,
        BatchSource(CROPS, networks, recipe, "corrector", CPU),
        recipe.stages["corrector"],
        CPU,
    )
    assert isinstance(networks.corrector, StatisticsCorrector)
    assert isinstance(networks.predictor, SinglePredictor)
    last, reading = networks.corrector.last_layer, networks.predictor.head[-1]
    assert isinstance(reading, nn.Linear)
    with torch.no_grad():
        last.weight.fill_(0)
        last.bias.fill_(0.05 if corrected == "away" else -0.05)
    # P always reads the top of the range, so every step down is towards the truth.
    with torch.no_grad():
        reading.weight.fill_(0)
        reading.bias.fill_(0.9)
    images = BlursByError(place)
    monkeypatch.setattr(networks.sftmd, "unclamped", images.unclamped)
    before = last.bias.detach().clone().numpy()
    figures = search_step_size(place)
    np.testing.assert_allclose(last.bias.detach().numpy(), figures["step_size"] * before, rtol=1e-6)
    gains = {d: figures[f"gain_at_{d:g}"] for d in STEP_SIZES}
    if corrected == "away":
        assert figures["step_size"] == min(STEP_SIZES)
        assert max(gains.values()) < 0
    else:
        assert figures["step_size"] > min(STEP_SIZES)
        assert gains[figures["step_size"]] > gains[min(STEP_SIZES)] > 0


def test_a_step_that_helps_on_average_but_hurts_some_blurs_is_not_taken() -> None:
    measured = [Gains(1.0, 0.02, -0.01), Gains(0.5, 0.01, 0.001), Gains(0.1, 0.002, 0.0)]
    assert choose(measured) == 0.5
    assert choose([dataclasses.replace(g, worst=-1) for g in measured]) == 0.1
