from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from ikc_deploy.cli.ikc_train import main
from ikc_deploy.errors import RecipeError
from ikc_deploy.networks.flow import KernelFlow, load_flow
from ikc_deploy.networks.reference_flow import import_flow
from ikc_deploy.training.distributed import ProcessGroup
from ikc_deploy.training.fkp_recipe import FkpRecipe
from ikc_deploy.training.fkp_task import FkpTask, held_out_likelihood
from ikc_deploy.training.recipe_kinds import load_recipe, new_task
from ikc_deploy.training.recipes import read_recipe
from ikc_deploy.training.trainer import train
from tests.cli.running import assert_one_clear_line, invoke

SMALL = """
kind = "fkp"
scales = [3, 2]
seed = 5
log_every = 10
save_every = 12
held_out = 100
[training]
steps = 30
batch = 30
learning_rate = 2e-3
weight_decay = 1e-6
halvings = [25]
settling = 300
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def run_training(
    recipe: FkpRecipe, run: Path, *, resume: bool = False, steps: float = math.inf
) -> bool:
    """Whether it was finished within these steps."""
    seen = 0

    def progress(stage: str, done: int, total: int, loss: float) -> None:
        nonlocal seen
        seen += 1

    path = train(
        FkpTask(recipe, torch.device("cpu")),
        run,
        resume=resume,
        progress=progress,
        keep_going=lambda: seen < steps,
    )
    return path is not None


def test_a_run_learns_and_a_broken_one_ends_as_the_unbroken(small: Path, tmp_path: Path) -> None:
    recipe = read_recipe(FkpRecipe, small)
    assert run_training(recipe, tmp_path / "unbroken")
    broken = tmp_path / "broken"
    assert not run_training(recipe, broken, steps=20)
    assert not run_training(recipe, broken, resume=True, steps=18)
    assert run_training(recipe, broken, resume=True)
    for scale in (2, 3):
        name = f"fkp-x{scale}.safetensors"
        flow, other = (load_flow(scale, tmp_path / run / name) for run in ("unbroken", "broken"))
        for ours, theirs in zip(
            flow.state_dict().values(), other.state_dict().values(), strict=True
        ):
            assert torch.equal(ours, theirs)
        learnt, _ = held_out_likelihood(flow, 500)
        torch.manual_seed(0)
        assert learnt < held_out_likelihood(KernelFlow(scale).eval(), 500)[0] - 15
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("unbroken", "broken")]
    steps = [
        [(json.loads(e)["stage"], json.loads(e)["step"]) for e in x.splitlines()] for x in logs
    ]
    # A stop between two lines of the log leaves no trace in it.
    assert steps[0] == steps[1]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_shipped_priors_are_as_likely_as_the_references(shared: Path, scale: int) -> None:
    published = import_flow(shared / "official_fkp" / f"FKP_x{scale}.pt")
    reference, _ = held_out_likelihood(published, 4000)
    ours, _ = held_out_likelihood(load_flow(scale), 4000)
    assert ours < reference + 0.02 * abs(reference)


def test_the_shipped_recipe_is_that_of_the_paper(repository: Path) -> None:
    recipe = read_recipe(FkpRecipe, repository / "training" / "fkp.toml")
    assert recipe.scales == (2, 3, 4)
    rates = [recipe.training.rate(step) for step in (0, 19_999, 20_000, 44_999, 45_000, 49_999)]
    assert rates == [1e-4, 1e-4, 5e-5, 1e-4 / 32, 1e-4 / 64, 1e-4 / 64]


def test_the_command_trains_it_and_says_where(small: Path, tmp_path: Path) -> None:
    small.write_text(SMALL.replace("[3, 2]", "[2]").replace("30", "10"))
    done = invoke(main, small, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'run'}\n"
    assert load_flow(2, tmp_path / "run" / "fkp-x2.safetensors").scale == 2
    refused = invoke(main, small, "--out", tmp_path / "other", "--data", tmp_path)
    assert_one_clear_line(refused, "without images", "--data")
    with pytest.raises(RecipeError, match="one process"):
        new_task(load_recipe(small), torch.device("cpu"), ProcessGroup(0, 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("scales = [3, 2]", "scales = [8]"), "scales must be among"),
        (("scales = [3, 2]", "scales = [2, 2]"), "each once"),
        (("scales = [3, 2]", "scales = 2"), "scales must be a list"),
        (("batch = 30", "batch = 1"), "batch must be a whole number from 2"),
        (("halvings = [25]", "halvings = [0.5]"), "halvings"),
        (("seed = 5", "patch = 5"), "unknown settings patch"),
        (("[training]", "[sftmd]"), "unknown settings sftmd"),
        (('kind = "fkp"', 'kind = "gan"'), "kind must be one of ikc, dan, fkp"),
    ],
)
def test_an_impossible_recipe_is_named(small: Path, change: tuple[str, str], words: str) -> None:
    small.write_text(SMALL.replace(*change))
    with pytest.raises(RecipeError, match=words) as refusal:
        load_recipe(small)
    assert str(small) in str(refusal.value)
