from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import SinglePredictor
from ikc_deploy.training.batches import BatchSource
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.loop_recipe import LoopRecipe
from ikc_deploy.training.recipes import read_recipe
from ikc_deploy.training.stage_context import StageContext
from ikc_deploy.training.stages import STAGES
from ikc_deploy.training.training_task import TrainingStage
from tests.samples import DESIGNS, photo, small_architecture
from tests.training.recipe_changes import with_stages

CPU = torch.device("cpu")
CROPS = CropSource([photo(60, 70)])
OWNED = {
    "sftmd": {"sftmd"},
    "predictor": {"predictor"},
    "corrector": {"corrector"},
    "joint": {"sftmd", "predictor", "corrector"},
}


@pytest.fixture
def recipe(repository: Path) -> LoopRecipe:
    return read_recipe(LoopRecipe, repository / "training" / "smoke.toml", (repository,))


def prepared(recipe: LoopRecipe, design: Design) -> tuple[LoopRecipe, IkcNetworks]:
    settings = small_architecture(design)
    return dataclasses.replace(recipe, architecture=settings), new_networks(settings, seed=0)


def stage_of(name: str, networks: IkcNetworks, recipe: LoopRecipe) -> TrainingStage:
    source = BatchSource(CROPS, networks, recipe, name, CPU)
    return STAGES[name](StageContext(networks, source, recipe.stages[name], CPU))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", OWNED)
def test_a_stage_sends_gradients_to_its_own_networks_only(
    recipe: LoopRecipe, name: str, design: Design
) -> None:
    recipe, networks = prepared(recipe, design)
    stage = stage_of(name, networks, recipe)
    loss = stage.loss(stage.draw(0))
    assert loss.shape == () and loss.isfinite() and loss > 0
    loss.backward()  # type: ignore[no-untyped-call]
    learning = {
        other
        for other, module in networks.modules().items()
        if any(p.grad is not None and p.grad.any() for p in module.parameters())
    }
    assert learning == OWNED[name]
    trained = {id(p) for p in stage.module.parameters()}
    assert trained == {id(p) for o in OWNED[name] for p in networks.modules()[o].parameters()}


def test_the_loss_of_f_is_the_mean_absolute_error(recipe: LoopRecipe) -> None:
    recipe, networks = prepared(recipe, "compact")
    stage = stage_of("sftmd", networks, recipe)
    loss = stage.loss(stage.draw(5))
    batch = BatchSource(CROPS, networks, recipe, "sftmd", CPU).batch(5)
    with torch.no_grad():
        expected = (networks.sftmd.unclamped(batch.lr, batch.code) - batch.hr).abs().mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_f_gets_the_codes_of_p_for_a_share_of_the_batch(recipe: LoopRecipe) -> None:
    settings = dataclasses.replace(recipe.stages["sftmd"], batch=64, predicted_share=0.25)
    recipe, networks = prepared(with_stages(recipe, sftmd=settings), "film")
    stage = stage_of("sftmd", networks, recipe)
    given: list[torch.Tensor] = []
    unclamped = networks.sftmd.unclamped
    networks.sftmd.unclamped = lambda lr, code: given.append(code) or unclamped(lr, code)  # type: ignore[method-assign, func-returns-value]
    inputs = stage.draw(5)
    stage.loss(inputs).backward()  # type: ignore[no-untyped-call]
    (codes,) = given
    with torch.no_grad():
        predicted = networks.predictor(inputs.batch.lr)
    chosen = inputs.chosen[:, 0]
    assert 8 <= int(chosen.sum()) <= 24
    torch.testing.assert_close(codes[chosen], predicted[chosen])
    assert torch.equal(codes[~chosen], inputs.batch.code[~chosen])
    assert all(p.grad is None for p in networks.predictor.parameters())


def test_the_inputs_of_a_step_can_be_overwritten_in_place(recipe: LoopRecipe) -> None:
    recipe, networks = prepared(recipe, "film")
    stage = stage_of("corrector", networks, recipe)
    first, second = stage.draw(0), stage.draw(1)
    kept = first.clone()
    addresses = [tensor.data_ptr() for tensor in kept.tensors()]
    kept.copy_(second)
    assert [tensor.data_ptr() for tensor in kept.tensors()] == addresses
    assert all(map(torch.equal, kept.tensors(), second.tensors()))
    assert not torch.equal(first.batch.hr, second.batch.hr)
    assert stage.loss(kept) == stage.loss(second)


def test_the_loss_of_the_compact_p_is_on_sigma(recipe: LoopRecipe) -> None:
    recipe, networks = prepared(recipe, "compact")
    predictor = networks.predictor
    assert isinstance(predictor, SinglePredictor)
    for parameter in predictor.head.parameters():
        parameter.data.zero_()
    stage = stage_of("predictor", networks, recipe)
    loss = stage.loss(stage.draw(5))
    sigma = (
        BatchSource(CROPS, networks, recipe, "predictor", CPU).batch(5).kernel_parameters.double()
    )
    # The middle of the range, 0.2 to 4; quadratic below an error of 0.1.
    errors = (sigma - 2.1).abs()
    expected = torch.where(errors < 0.1, errors**2 / 0.2, errors - 0.05).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", OWNED)
def test_training_on_one_batch_lowers_its_loss(recipe: LoopRecipe, name: str) -> None:
    recipe, networks = prepared(recipe, "compact")
    stage = stage_of(name, networks, recipe)
    optimizer = torch.optim.Adam(stage.module.parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        loss = stage.loss(stage.draw(0))
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < 0.99 * losses[0]
