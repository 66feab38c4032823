from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ikc_deploy.evaluation import gaussian8
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import IkcNetworks, new_networks
from ikc_deploy.networks.predictor import StatisticsPredictor
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.recipes import Recipe, load_recipe
from ikc_deploy.training.stages import BatchSource, build_stage
from tests.samples import DESIGNS, photo, small_architecture

CPU = torch.device("cpu")
CROPS = CropSource((photo(60, 70),))
OWNED = {
    "sftmd": {"sftmd"},
    "predictor": {"predictor"},
    "corrector": {"corrector"},
    "joint": {"sftmd", "corrector"},
}


@pytest.fixture
def recipe(repository: Path) -> Recipe:
    return load_recipe(repository / "training" / "smoke.toml", (repository,))


def prepared(recipe: Recipe, design: Design) -> tuple[Recipe, IkcNetworks]:
    settings = small_architecture(design)
    return dataclasses.replace(recipe, architecture=settings), new_networks(settings, seed=0)


def test_a_batch_holds_one_degradation_and_its_truth(recipe: Recipe) -> None:
    recipe, networks = prepared(recipe, "compact")
    batch = BatchSource(CROPS, networks, recipe, "sftmd").batch(3, CPU)
    assert batch.hr.shape == (2, 3, 48, 48)
    codes = networks.basis.code_of_sigma(batch.sigma[:, 0].double().numpy())
    np.testing.assert_allclose(batch.code, codes, atol=1e-5)
    assert batch.sigma[0] != batch.sigma[1]
    for hr, lr, sigma in zip(batch.hr, batch.lr, batch.sigma, strict=True):
        levels = (hr * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
        expected = gaussian8.degrade_gaussian(levels, float(sigma), 4)
        assert np.abs(lr.permute(1, 2, 0).numpy() * 255 - expected).max() < 1.001


def test_a_batch_depends_on_seed_stage_and_step_alone(recipe: Recipe) -> None:
    recipe, networks = prepared(recipe, "compact")
    source = BatchSource(CROPS, networks, recipe, "sftmd")
    first = source.batch(3, CPU).hr
    source.batch(4, CPU)
    assert torch.equal(source.batch(3, CPU).hr, first)
    reseeded = dataclasses.replace(recipe, seed=1)
    others = [
        source.batch(4, CPU),
        BatchSource(CROPS, networks, recipe, "predictor").batch(3, CPU),
        BatchSource(CROPS, networks, reseeded, "sftmd").batch(3, CPU),
    ]
    assert not any(torch.equal(other.hr, first) for other in others)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", OWNED)
def test_a_stage_sends_gradients_to_its_own_networks_only(
    recipe: Recipe, name: str, design: Design
) -> None:
    recipe, networks = prepared(recipe, design)
    stage = build_stage(name, CROPS, networks, recipe, CPU)
    loss = stage.loss(0)
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


def test_the_loss_of_f_is_the_mean_absolute_error(recipe: Recipe) -> None:
    recipe, networks = prepared(recipe, "compact")
    loss = build_stage("sftmd", CROPS, networks, recipe, CPU).loss(5)
    batch = BatchSource(CROPS, networks, recipe, "sftmd").batch(5, CPU)
    with torch.no_grad():
        expected = (networks.sftmd.unclamped(batch.lr, batch.code) - batch.hr).abs().mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_of_the_compact_p_is_on_sigma(recipe: Recipe) -> None:
    recipe, networks = prepared(recipe, "compact")
    predictor = networks.predictor
    assert isinstance(predictor, StatisticsPredictor)
    for parameter in predictor.head.parameters():
        parameter.data.zero_()
    loss = build_stage("predictor", CROPS, networks, recipe, CPU).loss(5)
    sigma = BatchSource(CROPS, networks, recipe, "predictor").batch(5, CPU).sigma.double()
    # The middle of the range, 0.2 to 4; quadratic below an error of 0.1.
    errors = (sigma - 2.1).abs()
    expected = torch.where(errors < 0.1, errors**2 / 0.2, errors - 0.05).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", OWNED)
def test_training_on_one_batch_lowers_its_loss(recipe: Recipe, name: str) -> None:
    recipe, networks = prepared(recipe, "compact")
    stage = build_stage(name, CROPS, networks, recipe, CPU)
    optimizer = torch.optim.Adam(stage.module.parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        loss = stage.loss(0)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < 0.99 * losses[0]
