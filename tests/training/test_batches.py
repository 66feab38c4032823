from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ikc_deploy.errors import RecipeError
from ikc_deploy.imaging import degrade
from ikc_deploy.kernels import anisotropic_kernel
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.training.batches import Batch, BatchSource
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.distributed import ProcessGroup
from ikc_deploy.training.loop_recipe import DegradationRecipe, LoopRecipe
from ikc_deploy.training.recipes import read_recipe
from tests.samples import photo, small_architecture
from tests.training.recipe_changes import with_stages

CPU = torch.device("cpu")
CROPS = CropSource([photo(60, 70)])


@pytest.fixture
def recipe(repository: Path) -> LoopRecipe:
    return read_recipe(LoopRecipe, repository / "training" / "smoke.toml", (repository,))


def prepared(recipe: LoopRecipe, design: Design) -> tuple[LoopRecipe, IkcNetworks]:
    settings = small_architecture(design)
    return dataclasses.replace(recipe, architecture=settings), new_networks(settings, seed=0)


def test_a_batch_holds_one_degradation_and_its_truth(recipe: LoopRecipe) -> None:
    recipe, networks = prepared(recipe, "compact")
    batch = BatchSource(CROPS, networks, recipe, "sftmd", CPU).batch(3)
    assert batch.hr.shape == (2, 3, 48, 48)
    codes = networks.basis.code_of_sigma(batch.kernel_parameters[:, 0].double().numpy())
    np.testing.assert_allclose(batch.code, codes, atol=1e-5)
    assert batch.kernel_parameters[0] != batch.kernel_parameters[1]
    for hr, lr, sigma in zip(batch.hr, batch.lr, batch.kernel_parameters, strict=True):
        levels = (hr * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
        expected = degrade.degrade_gaussian(levels, float(sigma), 4)
        assert np.abs(lr.permute(1, 2, 0).numpy() * 255 - expected).max() < 1.001


def test_a_batch_depends_on_seed_stage_and_step_alone(recipe: LoopRecipe) -> None:
    recipe, networks = prepared(recipe, "compact")
    source = BatchSource(CROPS, networks, recipe, "sftmd", CPU)
    first = source.batch(3).hr
    source.batch(4)
    assert torch.equal(source.batch(3).hr, first)
    reseeded = dataclasses.replace(recipe, seed=1)
    others = [
        source.batch(4),
        BatchSource(CROPS, networks, recipe, "predictor", CPU).batch(3),
        BatchSource(CROPS, networks, reseeded, "sftmd", CPU).batch(3),
    ]
    assert not any(torch.equal(other.hr, first) for other in others)


def test_ellipses_are_drawn_in_every_direction(recipe: LoopRecipe) -> None:
    settings = dataclasses.replace(
        small_architecture("compact"), kernels="anisotropic", sigma_range=(0.6, 4.0), code_size=30
    )
    stage = dataclasses.replace(recipe.stages["sftmd"], batch=64)
    recipe = with_stages(dataclasses.replace(recipe, architecture=settings), sftmd=stage)
    networks = new_networks(settings, seed=0)
    batch = BatchSource(CROPS, networks, recipe, "sftmd", CPU).batch(0)
    mean, q, t = batch.kernel_parameters.double().T.numpy()
    half, theta = np.hypot(q, t), 0.5 * np.arctan2(t, q)
    kernels = anisotropic_kernel(mean + half, mean - half, theta)
    np.testing.assert_allclose(batch.code, networks.basis.encode(kernels), atol=1e-5)
    assert (mean + half).max() < 4 and (mean - half).min() > 0.6
    assert half.max() > 1 and all(
        np.any((theta > low) & (theta < low + 0.4)) for low in (-1.5, -0.8, 0, 0.8)
    )


def test_noise_and_compression_come_after_shrinking(recipe: LoopRecipe) -> None:
    stage = dataclasses.replace(recipe.stages["sftmd"], batch=64, patch=15)
    recipe, networks = prepared(with_stages(recipe, sftmd=stage), "compact")

    def drawn(**settings: object) -> Batch:
        spoiled = DegradationRecipe(**settings)  # type: ignore[arg-type]
        changed = dataclasses.replace(recipe, degradation=spoiled)
        return BatchSource(CROPS, networks, changed, "sftmd", CPU).batch(0)

    clean, noisy, packed = drawn(), drawn(noise=15.0), drawn(jpeg=(60, 60))
    assert torch.equal(clean.hr, noisy.hr) and torch.equal(clean.code, noisy.code)
    # Sigma is uniform from 0 to 15 levels, so the variances are 15^2 u^2: their mean is 75.
    deviations = 255 * (noisy.lr - clean.lr).flatten(1).std(dim=1)
    assert 0 < deviations.min() < 3 and 12 < deviations.max() < 16
    assert float((deviations**2).mean()) == pytest.approx(75, rel=0.3)
    assert 0.5 < 255 * float((packed.lr - clean.lr).abs().mean()) < 16
    for batch in (noisy, packed):
        torch.testing.assert_close(batch.lr * 255, (batch.lr * 255).round(), atol=1e-3, rtol=0)


def test_processes_make_the_parts_of_one_batch(recipe: LoopRecipe) -> None:
    recipe, networks = prepared(recipe, "compact")
    recipe = dataclasses.replace(recipe, degradation=DegradationRecipe(9.0, (50, 90)))
    whole, first, second = (
        BatchSource(CROPS, networks, recipe, "sftmd", CPU, world).batch(3)
        for world in (ProcessGroup(), ProcessGroup(0, 2), ProcessGroup(1, 2))
    )
    for field in dataclasses.fields(Batch):
        parts = torch.cat([getattr(batch, field.name) for batch in (first, second)])
        torch.testing.assert_close(parts, getattr(whole, field.name), atol=1e-6, rtol=0)
    with pytest.raises(RecipeError, match="cannot be split evenly among 3"):
        BatchSource(CROPS, networks, recipe, "sftmd", CPU, ProcessGroup(0, 3))


def test_levels_are_those_of_the_noise_and_the_compression(recipe: LoopRecipe) -> None:
    stage = dataclasses.replace(recipe.stages["sftmd"], batch=64)
    recipe, networks = prepared(with_stages(recipe, sftmd=stage), "film")
    clean = BatchSource(CROPS, networks, recipe, "sftmd", CPU).batch(3)
    assert not clean.levels.any() and not clean.code[:, -2:].any()
    noise_only = DegradationRecipe(noise=20.0, share=0.5)
    noisy = BatchSource(
        CROPS, networks, dataclasses.replace(recipe, degradation=noise_only), "sftmd", CPU
    ).batch(3)
    torch.testing.assert_close(noisy.hr, clean.hr)
    torch.testing.assert_close(noisy.code[:, :-2], clean.code[:, :-2])
    torch.testing.assert_close(noisy.code[:, -2:], noisy.levels)
    assert 0.3 < (noisy.levels[:, 0] > 0).float().mean() < 0.7 and not noisy.levels[:, 1].any()
    inside = (clean.lr > 0.3) & (clean.lr < 0.7)
    for level, before, after, where in zip(
        noisy.levels[:, 0], clean.lr, noisy.lr, inside, strict=True
    ):
        deviation = 25 * float(level)
        if level == 0:
            assert torch.equal(before, after)
        # Below a level rounding decides; without grey pixels the clamp does.
        elif deviation > 2 and where.sum() >= 100:
            found = float((255 * (after - before))[where].std())
            assert found == pytest.approx((deviation**2 + 1 / 6) ** 0.5, rel=0.25)
    jpeg_only = DegradationRecipe(jpeg=(50, 99), share=0.5)
    compressed = BatchSource(
        CROPS, networks, dataclasses.replace(recipe, degradation=jpeg_only), "sftmd", CPU
    ).batch(3)
    changed = (compressed.lr != clean.lr).flatten(1).any(dim=1)
    assert torch.equal(changed, compressed.levels[:, 1] > 0) and not compressed.levels[:, 0].any()
    assert float(compressed.levels.max()) <= 1
