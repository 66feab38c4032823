from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ikc_deploy.errors import InputError, RecipeError
from ikc_deploy.imaging.torch_ops import degrade_circular
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.kernels.conventions import degrade_fkp, random_fkp_kernels
from ikc_deploy.networks.usrnet import load_usrnet
from ikc_deploy.training.distributed import SINGLE_PROCESS, ProcessGroup
from ikc_deploy.training.recipes import read_recipe
from ikc_deploy.training.run_log import LOG_FILE
from ikc_deploy.training.trainer import train
from ikc_deploy.training.usrnet_recipe import UsrnetRecipe
from ikc_deploy.training.usrnet_task import UsrnetTask
from tests.samples import photo

SMOKE = "training/usrnet-smoke.toml"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        write_rgb(photo(64, 60 + number, number), folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def recipe(repository: Path, images: Path) -> UsrnetRecipe:
    return read_recipe(UsrnetRecipe, repository / SMOKE, (images,))


def trained(
    recipe: UsrnetRecipe, run: Path, resume: bool = False, stop_after: int | None = None
) -> Path | None:
    seen = 0

    def count(stage: str, done: int, steps: int, loss: float) -> None:
        nonlocal seen
        seen += 1

    return train(
        UsrnetTask(recipe, torch.device("cpu")),
        run,
        resume=resume,
        progress=count,
        keep_going=lambda: stop_after is None or seen < stop_after,
    )


@pytest.fixture(scope="module")
def finished(recipe: UsrnetRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = trained(recipe, tmp_path_factory.mktemp("runs") / "unbroken")
    assert path is not None
    return path


def test_a_smoke_run_lowers_the_loss(recipe: UsrnetRecipe, finished: Path) -> None:
    record = load_usrnet(finished).training_record
    assert record["recipe"] == "usrnet-smoke" and record["last"]["usrnet"]["step"] == 12
    lines = (finished.parent / LOG_FILE).read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert losses[-1] < 0.9 * losses[0]


def test_a_stopped_run_goes_on_as_an_unbroken_one(
    recipe: UsrnetRecipe, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert trained(recipe, run, stop_after=7) is None
    with pytest.raises(InputError, match="--resume"):
        trained(recipe, run)
    resumed = trained(recipe, run, resume=True)
    assert resumed is not None
    whole, broken = load_file(finished), load_file(resumed)
    assert [key for key in whole if not torch.equal(whole[key], broken[key])] == []
    assert (run / LOG_FILE).read_text().count("\n") == 3


def test_a_run_is_resumed_only_with_its_own_images_and_recipe(
    recipe: UsrnetRecipe, images: Path, tmp_path: Path
) -> None:
    assert trained(recipe, tmp_path / "run", stop_after=2) is None
    other = Path(shutil.copytree(images, tmp_path / "other"))
    (other / "0.png").unlink()
    with pytest.raises(RecipeError, match="trained on other images"):
        trained(dataclasses.replace(recipe, data=(other,)), tmp_path / "run", resume=True)
    with pytest.raises(RecipeError, match="started with other settings"):
        trained(dataclasses.replace(recipe, seed=1), tmp_path / "run", resume=True)


def test_two_processes_draw_the_halves_of_a_batch(recipe: UsrnetRecipe) -> None:
    def drawn(processes: ProcessGroup) -> Any:
        task = UsrnetTask(recipe, torch.device("cpu"), processes)
        task.build(None, resumed=False)
        return task.stage("usrnet").draw(3)

    whole = drawn(SINGLE_PROCESS)
    halves = [drawn(ProcessGroup(rank, 2)) for rank in range(2)]
    for name in ("hr", "lr", "kernels", "noise"):
        joined = torch.cat([getattr(half, name) for half in halves])
        torch.testing.assert_close(joined, getattr(whole, name), atol=1e-6, rtol=0)
    with pytest.raises(RecipeError, match="cannot be split"):
        UsrnetTask(recipe, torch.device("cpu"), ProcessGroup(0, 3))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_batches_are_degraded_as_pictures_are(scale: int) -> None:
    hr = np.stack([photo(48, 48, seed) for seed in range(2)])
    kernels = random_fkp_kernels(np.random.default_rng(0), 2, scale)
    planes = torch.from_numpy(hr).permute(0, 3, 1, 2).double()
    found = degrade_circular(planes, torch.from_numpy(kernels), scale).permute(0, 2, 3, 1)
    for index in range(2):
        exact = degrade_fkp(hr[index], kernels[index], scale)
        assert np.allclose(found[index].numpy(), exact, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("patch = 48", "patch = 50"), "multiple of 8 and of every scale"),
        (("patch = 48", "patch = 16"), "at least 11 HR pixels|multiple of 8"),
        (("iterations = 2", "iterations = 0"), "iterations must be a whole number from 1"),
        (("iterations = 2", "iteration = 2"), "unknown settings iteration"),
        (("[network]", "[blur]\nnoise = 300\n[network]"), "noise must lie in"),
        (("[network]", "[blur]\nscales = [2, 5]\n[network]"), "scales must be among"),
        (("log_every = 4", "log_evry = 4"), "unknown settings log_evry"),
        # A setting of stages of loops alone.
        (("steps = 12", "steps = 12\nunroll = 2"), r"\[training\] unknown settings unroll"),
    ],
)
def test_an_impossible_recipe_is_refused(
    repository: Path, images: Path, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text((repository / SMOKE).read_text().replace(*change))
    with pytest.raises(RecipeError, match=words):
        read_recipe(UsrnetRecipe, file, (images,))


def test_the_shipped_recipe_is_sound(repository: Path) -> None:
    recipe = read_recipe(UsrnetRecipe, repository / "training" / "usrnet-tiny.toml", (repository,))
    assert recipe.blur.scales == (2, 3, 4)
