from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy.errors import RecipeError
from ikc_deploy.networks.architecture import ARCHITECTURES
from ikc_deploy.training.recipes import load_recipe

RECIPES = [
    path
    for path in sorted((Path(__file__).resolve().parents[2] / "training").glob("*.toml"))
    if "kind =" not in path.read_text()
]
"""Of IKC's networks."""

VALID = """
architecture = "x2-lite"
data = ["images", "/more"]
seed = 5
[sftmd]
steps = 30
batch = 2
patch = 16
learning_rate = 1e-3
[predictor]
steps = 20
batch = 3
patch = 16
learning_rate = 2e-3
[corrector]
steps = 10
batch = 4
patch = 16
learning_rate = 3e-3
unroll = 2
[validation]
folder = "val"
sigmas = [0.8, 1.6]
every = 10
"""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes_load(path: Path) -> None:
    recipe = load_recipe(path, data=(path.parent,))
    assert recipe.data == (path.parent,)
    assert list(recipe.stages)[:3] == ["sftmd", "predictor", "corrector"]


def test_a_recipe_is_read_into_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(VALID)
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    assert recipe.architecture == ARCHITECTURES["x2-lite"]
    assert recipe.data == (tmp_path.resolve() / "images", Path("/more"))
    assert recipe.seed == 5
    assert {name: stage.steps for name, stage in recipe.stages.items()} == {
        "sftmd": 30,
        "predictor": 20,
        "corrector": 10,
    }
    assert recipe.corrector.unroll == 2
    assert recipe.validation is not None
    assert recipe.validation.sigmas == (0.8, 1.6)
    assert load_recipe(path, (tmp_path / "other",)).data == (tmp_path.resolve() / "other",)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("seed = 5", "sead = 5", "unknown settings sead"),
        ("steps = 30", "stepz = 30", r"\[sftmd\] has unknown settings stepz"),
        ("steps = 20\n", "", r"\[predictor\] misses steps"),
        ("[corrector]", "[validator]", "validator"),
        ('architecture = "x2-lite"', "", "missing: architecture"),
        ("x2-lite", "x2-tiny", "x2-tiny"),
        ("every = 10\n", "", r"\[validation\] misses every"),
        ('data = ["images", "/more"]', "", "'data'"),
        ("seed = 5", 'precision = "float16"', "precision must be one of.*bfloat16"),
        ("seed = 5", "seed = ", "not valid TOML"),
        ("steps = 30", "steps = 0", "steps must be a positive integer"),
        ("batch = 3", "batch = 2.5", "batch must be a positive integer"),
        ("learning_rate = 3e-3", "learning_rate = 2", "learning_rate must lie in"),
        ("unroll = 2", "ema_decay = 1.0", "ema_decay must lie in"),
    ],
)
def test_a_mistake_is_reported_with_file_and_setting(
    tmp_path: Path, old: str, new: str, word: str
) -> None:
    check_refused(tmp_path / "wrong.toml", old, new, word)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("learning_rate = 1e-3", 'learning_rate = "fast"', "learning_rate"),
        ("unroll = 2", 'warmup = "long"', "warmup"),
        ("seed = 5", "seed = -1", "seed"),
        # Five LR pixels are ten HR pixels: too few to mirror a 21x21 kernel's reach of ten.
        ("patch = 16", "patch = 5", "patch"),
        ("seed = 5", "save_every = 0", "save_every"),
        ("seed = 5", "log_every = 0", "log_every"),
        ("every = 10", "every = 0", "every"),
        ("sigmas = [0.8, 1.6]", "sigmas = [0.8, 16]", "sigmas"),
        ('data = ["images", "/more"]', 'data = "images"', "data"),
        ('architecture = "x2-lite"', "architecture = 2", "architecture"),
    ],
)
def test_a_value_of_the_wrong_kind_is_reported_too(
    tmp_path: Path, old: str, new: str, word: str
) -> None:
    check_refused(tmp_path / "wrong.toml", old, new, word)


def test_a_malformed_architecture_table_is_reported(tmp_path: Path) -> None:
    smoke = next(path for path in RECIPES if path.name == "smoke.toml")
    path = tmp_path / "wrong.toml"
    path.write_text(smoke.read_text().replace("sigma_range = [0.2, 4.0]", "sigma_range = 4.0"))
    with pytest.raises(RecipeError, match=r"wrong\.toml.*sigma_range"):
        load_recipe(path, (tmp_path,))


def test_a_missing_recipe_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe at .*gone\.toml"):
        load_recipe(tmp_path / "gone.toml")


def check_refused(path: Path, old: str, new: str, word: str) -> None:
    assert old in VALID
    path.write_text(VALID.replace(old, new, 1))
    with pytest.raises(RecipeError, match=rf"(?s)wrong\.toml.*{word}"):
        load_recipe(path)
