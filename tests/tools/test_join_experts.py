from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from ikc_deploy.errors import CheckpointError, RecipeError
from ikc_deploy.networks.checkpoints import load_checkpoint, new_networks, save_checkpoint
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import MixturePredictor, SinglePredictor
from ikc_deploy.training.batches import BatchSource
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.init_from import started_networks
from ikc_deploy.training.loop_recipe import LoopRecipe
from ikc_deploy.training.recipes import read_recipe
from ikc_deploy.training.stage_context import StageContext
from ikc_deploy.training.stages import STAGES
from tests.samples import photo, small_architecture
from tools.join_experts import join_experts

SCALES = (4, 2, 4, 3)
"""Of two experts for clean images, then of two for degraded ones."""
FILM = small_architecture("film")


def single(scale: int, seed: int) -> IkcNetworks:
    networks = new_networks(small_architecture("film", scale), seed)
    head = cast(SinglePredictor, networks.predictor).head[-1]
    assert isinstance(head, nn.Linear)
    head.weight.data *= 0.05
    networks.freeze()
    return networks


SINGLES = [single(scale, seed) for seed, scale in enumerate(SCALES)]


def joined() -> IkcNetworks:
    networks = join_experts(SINGLES[0], SINGLES[:2], SINGLES[2:])
    networks.freeze()
    return networks


def mixture(networks: IkcNetworks) -> MixturePredictor:
    assert isinstance(networks.predictor, MixturePredictor)
    return networks.predictor


def gated(networks: IkcNetworks, log_odds: float) -> MixturePredictor:
    """P with a gate that is the same for every image."""
    predictor = mixture(networks)
    last = cast(nn.Linear, predictor.gate[-1])
    last.weight.zero_()
    last.bias.copy_(torch.tensor([log_odds, 0.25, 0.5]))
    return predictor


def sigma_in_lr(networks: IkcNetworks, lr: Tensor) -> Tensor:
    """Sigma in LR pixels, in float64."""
    assert isinstance(networks.predictor, SinglePredictor)
    parameters, _ = networks.predictor.estimates(lr)
    return parameters.double() / networks.architecture.scale


@pytest.mark.parametrize(
    ("log_odds", "share"), [(-40.0, 0.0), (40.0, 1.0), (0.0, 0.5), (1.0986123, 0.75)]
)
def test_the_gate_mixes_the_means_of_both_halves(log_odds: float, share: float) -> None:
    lr = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    each = [sigma_in_lr(networks, lr) for networks in SINGLES]
    expected = (1 - share) * (each[0] + each[1]) / 2 + share * (each[2] + each[3]) / 2
    parameters, levels = gated(joined(), log_odds).estimates(lr)
    torch.testing.assert_close(parameters.double() / 4, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(levels.double(), share * torch.tensor([[0.25, 0.5]] * 3).double())


def test_one_expert_cannot_outweigh_the_others() -> None:
    networks = joined()
    predictor = gated(networks, -40.0)
    last = cast(nn.Linear, predictor.heads()[0][-1])
    last.bias.fill_(1000.0)
    lr = torch.rand(1, 3, 16, 16)
    other = sigma_in_lr(SINGLES[1], lr)
    parameters, _ = predictor.estimates(lr)
    torch.testing.assert_close(parameters.double() / 4, (other + 1.0) / 2, atol=1e-5, rtol=1e-5)


def test_every_part_keeps_its_weights(tmp_path: Path) -> None:
    networks = joined()
    save_checkpoint(networks, tmp_path / "joined.safetensors")
    again = load_checkpoint(tmp_path / "joined.safetensors")
    assert isinstance(again, IkcNetworks)
    assert again.architecture == dataclasses.replace(FILM, experts=2)
    lr, code = torch.rand(1, 3, 8, 8), torch.rand(1, FILM.code_size)
    with torch.no_grad():
        assert torch.equal(again.predictor(lr), networks.predictor(lr))
        assert torch.equal(networks.sftmd(lr, code), SINGLES[0].sftmd(lr, code))
        sr = torch.rand(1, 3, 32, 32)
        assert torch.equal(networks.corrector(sr, code), SINGLES[0].corrector(sr, code))


def test_the_stage_of_p_trains_the_gate_alone(repository: Path) -> None:
    recipe = read_recipe(LoopRecipe, repository / "training" / "smoke.toml", (repository,))
    networks = joined()
    recipe = dataclasses.replace(recipe, architecture=networks.architecture, init_from="any")
    source = BatchSource(
        CropSource([photo(60, 70)]), networks, recipe, "predictor", torch.device("cpu")
    )
    context = StageContext(networks, source, recipe.stages["predictor"], torch.device("cpu"))
    stage = STAGES["predictor"](context)
    assert stage.module is mixture(networks).gate
    stage.module.requires_grad_(True)
    before = {key: value.clone() for key, value in networks.predictor.state_dict().items()}
    optimizer = torch.optim.Adam(stage.module.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = stage.loss(stage.draw(0))
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    after = networks.predictor.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if key.startswith("gate.")}


@pytest.mark.parametrize("scale", [2, 3])
def test_at_another_scale_p_reads_the_same_blur_in_lr_pixels(tmp_path: Path, scale: int) -> None:
    networks = joined()
    save_checkpoint(networks, tmp_path / "x4.safetensors")
    settings = dataclasses.replace(small_architecture("film", scale), experts=2)
    started = started_networks(settings, 0, "x4.safetensors", tmp_path)
    lr = torch.rand(2, 3, 24, 24)
    # Inside both ranges; at their ends an expert's reading is limited.
    with torch.no_grad():
        ours, theirs = (mixture(n).estimates(lr)[0] for n in (cast(IkcNetworks, started), networks))
    torch.testing.assert_close(ours / scale, theirs / 4, atol=1e-5, rtol=1e-5)


def test_what_is_no_expert_is_refused() -> None:
    with pytest.raises(CheckpointError, match="2 experts for clean images and 1 for degraded"):
        join_experts(SINGLES[0], SINGLES[:2], SINGLES[2:3])
    elliptic = dataclasses.replace(FILM, kernels="anisotropic")
    for other in (
        joined(),
        new_networks(elliptic, 0),
        new_networks(small_architecture("reference"), 0),
    ):
        with pytest.raises(CheckpointError, match="cannot be an expert"):
            join_experts(SINGLES[0], [other], SINGLES[:1])


def test_experts_without_weights_to_start_from_are_refused(repository: Path) -> None:
    recipe = read_recipe(LoopRecipe, repository / "training" / "smoke.toml", (repository,))
    with pytest.raises(RecipeError, match="experts are trained one by one"):
        dataclasses.replace(recipe, architecture=dataclasses.replace(FILM, experts=1))
