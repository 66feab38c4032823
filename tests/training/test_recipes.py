from __future__ import annotations

import datetime
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ikc_deploy.errors import RecipeError
from ikc_deploy.networks.architecture import ARCHITECTURES, Architecture
from ikc_deploy.networks.checkpoints import new_networks
from ikc_deploy.training.image_sets import SOURCES
from ikc_deploy.training.loop_recipe import LoopRecipe
from ikc_deploy.training.recipe_kinds import load_recipe
from ikc_deploy.training.recipes import read_recipe

RECIPE_FOLDER = Path(__file__).resolve().parents[2] / "training"
RECIPES = [
    path for path in sorted(RECIPE_FOLDER.glob("*.toml")) if "kind =" not in path.read_text()
]
"""Of the networks of a loop."""

VALID = """
architecture = "x2"
data = ["./images", "/more"]
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
    recipe = read_recipe(LoopRecipe, path, data=(path.parent,))
    assert recipe.data == (path.parent,)
    complete = ["dan"] if "dan" in path.stem else ["predictor", "sftmd", "corrector"]
    stages = list(recipe.stages)
    assert stages[: len(complete)] == complete or (recipe.init_from and set(stages) <= {*complete})


def test_only_a_recipe_that_continues_weights_may_leave_stages_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    short = VALID[: VALID.index("[corrector]")] + VALID[VALID.index("[validation]") :]
    path.write_text(short)
    with pytest.raises(RecipeError, match="missing: corrector"):
        read_recipe(LoopRecipe, path)
    path.write_text('init_from = "x2-lite"\n' + short)
    assert list(read_recipe(LoopRecipe, path).stages) == ["predictor", "sftmd"]
    path.write_text('init_from = "x2-lite"\n' + VALID[: VALID.index("[sftmd]")])
    with pytest.raises(RecipeError, match="missing: predictor, sftmd, corrector"):
        read_recipe(LoopRecipe, path)


def test_a_recipe_is_read_into_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(VALID)
    recipe = read_recipe(LoopRecipe, path)
    assert recipe.name == "mine"
    assert recipe.architecture == ARCHITECTURES["x2"]
    assert recipe.data == (tmp_path.resolve() / "images", Path("/more"))
    assert recipe.seed == 5
    assert {name: stage.steps for name, stage in recipe.stages.items()} == {
        "predictor": 20,
        "sftmd": 30,
        "corrector": 10,
    }
    assert recipe.stages["corrector"].unroll == 2
    assert recipe.validation is not None
    assert recipe.validation.sigmas == (0.8, 1.6)
    assert read_recipe(LoopRecipe, path, (tmp_path / "other",)).data == (
        tmp_path.resolve() / "other",
    )


def test_image_sets_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(VALID.replace('["./images", "/more"]', '["bsds400", "mine"]'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IKC_DATASETS", raising=False)
    with pytest.raises(RecipeError, match=r"'bsds400' \(the 400 images of BSDS500's.*IKC_DATASETS"):
        read_recipe(LoopRecipe, path)
    (tmp_path / "datasets" / "bsds400").mkdir(parents=True)
    with pytest.raises(RecipeError, match="image set 'mine' is in no folder"):
        read_recipe(LoopRecipe, path)
    for folder in ("first", "second"):
        (tmp_path / folder / "mine").mkdir(parents=True)
    (tmp_path / "second" / "bsds400").mkdir()
    monkeypatch.setenv("IKC_DATASETS", os.pathsep.join(("absent", "first", "second")))
    found = [
        folder.relative_to(tmp_path.resolve()) for folder in read_recipe(LoopRecipe, path).data
    ]
    assert found == [Path("second/bsds400"), Path("first/mine")]
    assert read_recipe(LoopRecipe, path, (tmp_path / "own",)).data == (
        (tmp_path / "own").resolve(),
    )


def test_shipped_recipes_point_nowhere_outside_the_repository() -> None:
    for path in RECIPE_FOLDER.glob("*.toml"):
        values = tomllib.loads(path.read_text())
        named = [*values.get("data", []), values.get("validation", {}).get("folder", "Set5")]
        assert all(name in SOURCES for name in named), path


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("seed = 5", "sead = 5", "unknown settings sead"),
        ("steps = 30", "stepz = 30", r"\[sftmd\] unknown settings stepz"),
        ("steps = 20\n", "", r"\[predictor\] missing settings steps"),
        ("[corrector]", "[validator]", "validator"),
        ('architecture = "x2"', "", "missing settings architecture"),
        ('"x2"', '"x2-tiny"', "x2-tiny"),
        ("every = 10\n", "", r"\[validation\] missing settings every"),
        ('data = ["./images", "/more"]', "", "'data'"),
        ("steps = 30", 'steps = 30\nprecision = "float16"', "precision must be one of.*bfloat16"),
        ("steps = 30", "steps = 30\npredicted_share = 1.5", "predicted_share must lie in"),
        ("seed = 5", "seed = ", "not valid TOML"),
        ("steps = 30", "steps = 0", "steps must be a whole number from 1.*got 0"),
        ("batch = 3", "batch = 2.5", "batch must be a whole number"),
        ("learning_rate = 3e-3", "learning_rate = 2", "learning_rate must lie in"),
        ("unroll = 2", "ema_decay = 1.0", "ema_decay must lie in"),
        ("[validation]", "[dan]\n[validation]", r"\[dan\] is no stage of the method 'ikc'"),
        ('"x2"', '"x2-dan"', r"\[corrector\] is no stage of the method 'dan'.*are dan$"),
        ("seed = 5", 'kind = "dan"', "kind is 'dan', but the architecture is one of 'ikc'"),
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
        ('data = ["./images", "/more"]', 'data = "images"', "data"),
        ('architecture = "x2"', "architecture = 2", "architecture"),
        ("learning_rate = 1e-3", "learning_rate = nan", "learning_rate must be a finite number"),
        ("steps = 30", "steps = true", "steps must be a whole number, got True"),
        ("[validation]", "[joint]\n[validation]", r"\[joint\] missing settings steps"),
        ("seed = 5", "joint = false", r"\[joint\] must be a table, got False"),
        ("seed = 5", "seed = 4294967296", "seed must be a whole number from 0"),
        (
            "seed = 5",
            "degradation = {jpeg = [1, 2, 3]}",
            r"\[degradation\] jpeg must be a list of 2",
        ),
        ("seed = 5", 'init_from = "a\\u0000b"', r"init_from must be a path, got 'a\\x00b'"),
        ("seed = 5", "name = 1979-05-27", "name must be a text"),
        ("seed = 5", "a = " + 3000 * "[", "not valid TOML"),
        ("seed = 5", "seed = " + 5000 * "9", "not valid TOML"),
        ("sigmas = [0.8, 1.6]", "sigmas = []", "sigmas"),
    ],
)
def test_a_value_of_the_wrong_kind_is_reported_too(
    tmp_path: Path, old: str, new: str, word: str
) -> None:
    check_refused(tmp_path / "wrong.toml", old, new, word)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sigma_range = [0.2, 4.0]", "sigma_range = 4.0"),
        ("sigma_range = [0.2, 4.0]", 'sigma_range = ["a", "b"]'),
        ("sigma_range = [0.2, 4.0]", "sigma_range = [[1], [2]]"),
        ("sigma_range = [0.2, 4.0]", "sigma_range = [0.2, 4e300]"),
        ("sigma_range = [0.2, 4.0]", "sigma_range = [2.0, 2.0000001]"),
        ("channels = 8", "channels = 1000000000"),
        ("channels = 8", "code_size = 500\nchannels = 8"),
        ("channels = 8", "code_size = true\nchannels = 8"),
        ("scale = 4", "scale = [4]"),
        ('design = "compact"', "design = {}"),
    ],
)
def test_an_impossible_architecture_is_reported(tmp_path: Path, old: str, new: str) -> None:
    smoke = next(path for path in RECIPES if path.name == "smoke.toml").read_text()
    assert old in smoke
    path = tmp_path / "wrong.toml"
    path.write_text(smoke.replace(old, new, 1))
    name = new.partition(" ")[0]
    with pytest.raises(RecipeError, match=rf"wrong\.toml.*\[architecture\] {name}.*got "):
        read_recipe(LoopRecipe, path, (tmp_path,))


def settings_of(path: Path) -> Iterator[tuple[str, str, str]]:
    """(file name, table or "", key) of everything that a recipe sets."""
    for key, value in tomllib.loads(path.read_text()).items():
        yield path.name, "", key
        for inner in value if isinstance(value, dict) else ():
            yield path.name, key, inner


def toml(value: Any) -> str:
    """A value, or a document if it is a dictionary, as TOML."""
    return "".join(f"{inline(key)} = {inline(part)}\n" for key, part in value.items())


def inline(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{inline(key)} = {inline(part)}" for key, part in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return repr(value)


SETTINGS = [place for path in sorted(RECIPE_FOLDER.glob("*.toml")) for place in settings_of(path)]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=300)
SCALARS = (
    st.booleans()
    | st.integers()
    | st.integers(-5, 500)
    | st.floats()
    | TEXTS
    | st.sampled_from(
        ["x4", "x4-lite", "reference", "compact", "isotropic", "bfloat16", ".", "fkp"]
    )
    | st.dates()
    | st.datetimes()
    | st.times()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(SETTINGS), value=VALUES)
@example(("smoke.toml", "", "kind"), [1])
@example(("smoke.toml", "architecture", "sigma_range"), ["a", "b"])
@example(("fkp.toml", "training", "halvings"), [True])
@example(("usrnet-smoke.toml", "blur", "scales"), [[2]])
def test_any_value_anywhere_is_taken_or_refused_by_name(
    tmp_path: Path, place: tuple[str, str, str], value: object
) -> None:
    name, table, key = place
    values = tomllib.loads((RECIPE_FOLDER / name).read_text())
    (values.setdefault(table, {}) if table else values)[key] = value
    path = tmp_path / "tried.toml"
    path.write_text(toml(values), encoding="utf-8")
    data = () if values.get("kind") == "fkp" else (tmp_path,)
    try:
        load_recipe(path, data)
    except RecipeError as error:
        message = str(error)
        assert "tried.toml" in message
        assert message.isprintable()
        assert len(message) < 1000
        # What a setting may be depends on others; the message names it or one of those.
        others = {"kind", "patch", "sigmas", "sigma_range", "scale", "--data"}
        assert any(word in message for word in {key, table or key} | others)


@settings(max_examples=8, deadline=None)
@given(
    design=st.sampled_from(["reference", "compact"]),
    kernels=st.sampled_from(["isotropic", "anisotropic"]),
    code_size=st.integers(1, 21 * 21),
    low=st.floats(0.05, 20.9),
    span=st.floats(0.1, 20.95),
)
@example("compact", "isotropic", 1, 0.05, 20.95)
@example("compact", "anisotropic", 441, 0.05, 0.1)
@example("compact", "isotropic", 441, 20.9, 0.1)
@example("reference", "isotropic", 10, 10.0, 0.1)
def test_networks_can_be_made_of_every_architecture_that_is_taken(
    design: str, kernels: str, code_size: int, low: float, span: float
) -> None:
    values = {"name": "any", "scale": 2, "design": design, "channels": 2, "blocks": 1}
    values |= {"estimator_channels": 2, "code_size": code_size, "kernels": kernels}
    made = Architecture.from_dict(values | {"sigma_range": [low, min(low + span, 21.0)]})
    networks = new_networks(made, seed=0)
    for module in networks.modules().values():
        assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_a_missing_recipe_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe at .*gone\.toml"):
        read_recipe(LoopRecipe, tmp_path / "gone.toml")


def check_refused(path: Path, old: str, new: str, word: str) -> None:
    assert old in VALID
    path.write_text(VALID.replace(old, new, 1))
    with pytest.raises(RecipeError, match=rf"(?s)wrong\.toml.*{word}"):
        read_recipe(LoopRecipe, path)
