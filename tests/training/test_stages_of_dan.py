from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ikc_deploy.errors import RecipeError
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.kernels import gaussian_kernel
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import load_checkpoint, new_dan_networks
from ikc_deploy.networks.dan import Dan2Estimator
from ikc_deploy.networks.loop_networks import DanNetworks
from ikc_deploy.training.batches import Batch, BatchSource
from ikc_deploy.training.data import CropSource
from ikc_deploy.training.init_from import started_networks
from ikc_deploy.training.loop_recipe import LoopRecipe, ValidationRecipe
from ikc_deploy.training.recipes import read_recipe
from ikc_deploy.training.run_log import LOG_FILE
from ikc_deploy.training.stage_context import StageContext
from ikc_deploy.training.stages import STAGES
from ikc_deploy.training.training_task import TrainingStage
from tests.bundles import save_small
from tests.samples import photo, small_architecture
from tests.training.recipe_changes import with_stages
from tests.training.test_trainer import assert_equal, run_training

CPU = torch.device("cpu")
CROPS = CropSource([photo(60, 70)])
DAN_DESIGNS: tuple[Design, ...] = ("dan1", "dan2")


@pytest.fixture(scope="module")
def recipe(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> LoopRecipe:
    images = tmp_path_factory.mktemp("images")
    for number in range(3):
        write_rgb(photo(64, 50 + number, number), images / f"{number}.png")
    write_rgb(photo(32, 32), images / "val" / "0.png")
    recipe = read_recipe(LoopRecipe, repository / "training" / "dan-smoke.toml", (images,))
    validation = ValidationRecipe(str(images / "val"), (1.8,), every=4, iters=3)
    return dataclasses.replace(recipe, validation=validation)


def stage_of(
    recipe: LoopRecipe, design: Design, unroll: int = 3
) -> tuple[TrainingStage, DanNetworks, BatchSource]:
    dan = dataclasses.replace(recipe.stages["dan"], unroll=unroll)
    recipe = with_stages(
        dataclasses.replace(recipe, architecture=small_architecture(design)), dan=dan
    )
    networks = new_dan_networks(recipe.architecture, seed=0)
    source = BatchSource(CROPS, networks, recipe, "dan", CPU)
    return STAGES["dan"](StageContext(networks, source, dan, CPU)), networks, source


def published_losses(networks: DanNetworks, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and kernel loss of the third iteration, every iteration with its gradients."""
    code = torch.from_numpy(networks.basis.delta_code()).repeat(len(batch.lr), 1)
    for _ in range(3):
        sr = networks.restorer(batch.lr, code.detach())
        found = code = networks.estimator(sr.detach(), batch.lr)
    truth = batch.code
    if isinstance(networks.estimator, Dan2Estimator):
        found = networks.estimator.kernels(sr.detach(), batch.lr)
        sigmas = batch.kernel_parameters[:, 0].tolist()
        truth = torch.stack([torch.from_numpy(gaussian_kernel(s)).flatten() for s in sigmas])
    return (sr - batch.hr).abs().mean(), (found - truth).abs().mean()


@pytest.mark.parametrize("design", DAN_DESIGNS)
def test_the_last_iteration_is_supervised_and_networks_are_cut_apart(
    recipe: LoopRecipe, design: Design
) -> None:
    stage, networks, source = stage_of(recipe, design)
    loss = stage.loss(stage.draw(5))
    loss.backward()  # type: ignore[no-untyped-call]
    image, kernel = published_losses(networks, source.batch(5))
    assert float(loss.detach()) == pytest.approx(float((image + kernel).detach()), rel=1e-4)
    # The image trains the Restorer alone, the kernel the Estimator alone.
    for module, part in ((networks.restorer, image), (networks.estimator, kernel)):
        parameters = list(module.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(part, parameters), strict=True
        ):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("design", DAN_DESIGNS)
def test_memory_does_not_grow_with_the_loop(recipe: LoopRecipe, design: Design) -> None:
    def kept(unroll: int) -> int:
        stage, _, _ = stage_of(recipe, design, unroll)
        inputs = stage.draw(0)
        sizes: list[int] = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            stage.loss(inputs)
        return sum(sizes)

    assert kept(6) == kept(1) > 0


@pytest.mark.parametrize("design", DAN_DESIGNS)
def test_training_on_one_batch_lowers_both_losses(recipe: LoopRecipe, design: Design) -> None:
    stage, networks, source = stage_of(recipe, design)
    before = published_losses(networks, source.batch(0))
    optimizer = torch.optim.Adam(stage.module.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        stage.loss(stage.draw(0)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = published_losses(networks, source.batch(0))
    assert after[0] < 0.9 * before[0]
    assert after[1] < 0.99 * before[1]


@pytest.fixture(scope="module")
def finished(recipe: LoopRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    assert run_training(recipe, run) is not None
    return run


@pytest.mark.parametrize("stops", [(1,), (3, 4)])
def test_a_stopped_run_goes_on_as_if_unbroken(
    recipe: LoopRecipe, finished: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    for index, stop in enumerate(stops):
        assert run_training(recipe, tmp_path, resume=index > 0, stop_after=stop) is None
    resumed = run_training(recipe, tmp_path, resume=True)
    assert_equal(resumed, load_file(finished / "checkpoint.safetensors"))


def test_bfloat16_and_compiled_blocks_train_too(
    recipe: LoopRecipe, tmp_path: Path, finished: Path
) -> None:
    with torch.compiler.set_stance("force_eager"):
        compiled = run_training(dataclasses.replace(recipe, compile=True), tmp_path / "compiled")
    half = dataclasses.replace(recipe.stages["dan"], precision="bfloat16")
    rounded = run_training(with_stages(recipe, dan=half), tmp_path / "half")
    unbroken = load_file(finished / "checkpoint.safetensors")
    assert_equal(compiled, unbroken)
    assert rounded is not None
    assert all(value.isfinite().all() for value in rounded.values())
    key = "restorer.fusion.weight"
    assert not torch.equal(rounded[key], unbroken[key])


def test_every_step_of_the_loop_is_measured(finished: Path) -> None:
    entries = [json.loads(line) for line in (finished / LOG_FILE).read_text().splitlines()]
    measured = [entry for entry in entries if "step0" in entry]
    assert [entry["step"] for entry in measured] == [4, 8]
    keys = {f"step{step}" for step in range(4)} | {f"sigma_mae{step}" for step in range(1, 4)}
    for entry in measured:
        assert entry.keys() - {"stage", "step"} == keys | {"true_kernel"}
    training = load_checkpoint(finished / "checkpoint.safetensors").training
    assert training["recipe"] == "dan-smoke"
    assert training["last"]["dan"]["step3"] == measured[-1]["step3"]
    assert 0 <= training["recommended_iters"] <= 3


def test_a_run_starts_from_weights_of_its_own_loop(
    recipe: LoopRecipe, finished: Path, tmp_path: Path
) -> None:
    start = str(finished / "checkpoint.safetensors")
    theirs = load_checkpoint(start)
    ours = started_networks(recipe.architecture, 5, start, tmp_path)
    for name, module in theirs.modules().items():
        assert_equal(dict(module.state_dict()), dict(ours.modules()[name].state_dict()))
    ikc = str(save_small(tmp_path))
    with pytest.raises(RecipeError, match=r"of the loop 'ikc', but the recipe trains .* 'dan'"):
        started_networks(recipe.architecture, 5, ikc, tmp_path)
    with pytest.raises(RecipeError, match=r"of the loop 'dan', but the recipe trains .* 'ikc'"):
        started_networks(small_architecture("compact"), 5, start, tmp_path)
