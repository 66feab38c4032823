from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ikc_deploy.errors import CheckpointError, InputError, RecipeError, TrainingError
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import load_checkpoint, new_networks, save_checkpoint
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.predictor import SinglePredictor
from ikc_deploy.training.init_from import started_networks
from ikc_deploy.training.loop_recipe import LoopRecipe, LoopStageRecipe, ValidationRecipe
from ikc_deploy.training.loop_task import LoopTask
from ikc_deploy.training.recipes import read_recipe
from ikc_deploy.training.run_log import LOG_FILE
from ikc_deploy.training.runs import STATE_FILE
from ikc_deploy.training.stage_context import StageInputs
from ikc_deploy.training.stages import PredictorStage
from ikc_deploy.training.trainer import train
from tests.samples import photo, small_architecture
from tests.training.recipe_changes import with_stages

# What smoke.toml does; it saves the state every third step of a stage.
STEPS = {"predictor": 4, "sftmd": 6, "corrector": 4, "joint": 4}


@pytest.fixture(scope="module", autouse=True)
def short_search() -> Iterator[None]:
    """One step size on few crops: the search, which has its own tests, takes most of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ikc_deploy.training.step_size_search.STEP_SIZES", (0.1,))
        patch.setattr("ikc_deploy.training.step_size_search._BATCHES", 2)
        yield


class Interruption(Exception):
    """Stands for a killed process."""


@pytest.fixture(scope="module")
def recipe(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> LoopRecipe:
    images = tmp_path_factory.mktemp("images")
    for number in range(3):
        write_rgb(photo(64, 50 + number, number), images / f"{number}.png")
    recipe = read_recipe(LoopRecipe, repository / "training" / "smoke.toml", (images,))
    assert {name: stage.steps for name, stage in recipe.stages.items()} == STEPS
    assert recipe.save_every == 3
    return recipe


def run_training(
    recipe: LoopRecipe,
    run: Path,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    killed_at: int | None = None,
) -> dict[str, Tensor] | None:
    """The tensors of the checkpoint, or None if the run stopped before."""
    seen = 0

    def progress(stage: str, done: int, steps: int, loss: float) -> None:
        nonlocal seen
        seen += 1
        assert 0 < done <= steps and not loss <= 0
        if seen == killed_at:
            raise Interruption

    path = train(
        LoopTask(recipe, torch.device("cpu")),
        run,
        resume=resume,
        progress=progress,
        keep_going=lambda: stop_after is None or seen < stop_after,
    )
    return None if path is None else load_file(path)


def assert_equal(first: dict[str, Tensor] | None, second: dict[str, Tensor] | None) -> None:
    assert first is not None and second is not None
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.fixture(scope="module")
def finished(recipe: LoopRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    assert run_training(recipe, run) is not None
    return run


@pytest.fixture(scope="module")
def unbroken(finished: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(finished / "checkpoint.safetensors")
    return tensors


# After 1, 5, 6, 7, 10, 13 and 17 steps in all; at the end of every stage.
@pytest.mark.parametrize("stops", [(1, 4, 1, 1, 3, 3, 4), (4, 6, 4)])
def test_a_stopped_run_goes_on_as_if_unbroken(
    recipe: LoopRecipe, unbroken: dict[str, Tensor], tmp_path: Path, stops: tuple[int, ...]
) -> None:
    for index, stop in enumerate(stops):
        assert run_training(recipe, tmp_path, resume=index > 0, stop_after=stop) is None
    assert_equal(run_training(recipe, tmp_path, resume=True), unbroken)


@pytest.mark.parametrize("step", [8, 18])
def test_a_killed_run_goes_on_from_its_last_saved_state(
    recipe: LoopRecipe, unbroken: dict[str, Tensor], tmp_path: Path, step: int
) -> None:
    with pytest.raises(Interruption):
        run_training(recipe, tmp_path, killed_at=step)
    assert_equal(run_training(recipe, tmp_path, resume=True), unbroken)


def test_resuming_a_finished_run_gives_its_checkpoint_again(
    recipe: LoopRecipe, unbroken: dict[str, Tensor], tmp_path: Path
) -> None:
    run_training(recipe, tmp_path)
    assert_equal(run_training(recipe, tmp_path, resume=True), unbroken)


def test_bfloat16_trains_other_weights_and_resumes_too(
    recipe: LoopRecipe, unbroken: dict[str, Tensor], tmp_path: Path
) -> None:
    stage = dataclasses.replace(recipe.stages["sftmd"], precision="bfloat16")
    recipe = with_stages(recipe, sftmd=stage)
    whole = run_training(recipe, tmp_path / "whole")
    assert whole is not None
    assert all(value.isfinite().all() for value in whole.values())
    assert not torch.equal(whole["sftmd.conv1.weight"], unbroken["sftmd.conv1.weight"])
    run_training(recipe, tmp_path / "parts", stop_after=8)
    assert_equal(run_training(recipe, tmp_path / "parts", resume=True), whole)


def test_measuring_on_the_way_does_not_change_the_run(
    recipe: LoopRecipe, unbroken: dict[str, Tensor], tmp_path: Path
) -> None:
    write_rgb(photo(32, 32), tmp_path / "val" / "0.png")
    validation = ValidationRecipe(str(tmp_path / "val"), (1.8,), every=2, iters=1)
    measured = run_training(dataclasses.replace(recipe, validation=validation), tmp_path / "run")
    assert_equal(measured, unbroken)
    last = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").training["last"]
    assert {"sigma_mae0"} <= last["predictor"].keys()
    assert {"true_kernel", "step0", "sigma_mae0"} <= last["sftmd"].keys()
    assert {"step1", "sigma_mae1"} <= last["corrector"].keys()
    assert {"true_kernel", "step1"} <= last["joint"].keys()


def test_a_run_that_trains_one_network_measures_the_whole_loop_at_its_end(
    recipe: LoopRecipe, finished: Path, tmp_path: Path
) -> None:
    write_rgb(photo(32, 32), tmp_path / "val" / "0.png")
    start = str(finished / "checkpoint.safetensors")
    validation = ValidationRecipe(str(tmp_path / "val"), (1.8,), every=9, iters=2)
    continued = dataclasses.replace(recipe, init_from=start, validation=validation)
    alone = with_stages(continued, predictor=None, corrector=None, joint=None)
    run_training(alone, tmp_path / "run")
    training = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").training
    assert list(training["last"]) == ["sftmd"] and "step1" not in training["last"]["sftmd"]
    assert 0 <= training["recommended_iters"] <= 2


def test_every_stage_is_trained_logged_and_recorded(finished: Path, recipe: LoopRecipe) -> None:
    entries = [json.loads(line) for line in (finished / LOG_FILE).read_text().splitlines()]
    assert list(dict.fromkeys(entry["stage"] for entry in entries)) == list(STEPS)
    assert {e["stage"]: e["step"] for e in entries} == STEPS
    assert all(entry["loss"] > 0 for entry in entries if "step_size" not in entry)
    # The line search of the step size ends the stages that train the corrector.
    assert [e["stage"] for e in entries if "step_size" in e] == ["corrector", "joint"]
    assert any((finished / "tensorboard").iterdir())
    networks = load_checkpoint(finished / "checkpoint.safetensors")
    assert networks.architecture == recipe.architecture
    assert networks.training["recipe"] == "smoke"
    assert networks.training["last"]["joint"]["step"] == 4


def test_a_run_goes_on_only_with_its_own_recipe(recipe: LoopRecipe, tmp_path: Path) -> None:
    run_training(recipe, tmp_path, stop_after=2)
    state = (tmp_path / STATE_FILE).read_bytes()
    longer = with_stages(recipe, predictor=dataclasses.replace(recipe.stages["predictor"], steps=9))
    for other in (dataclasses.replace(recipe, seed=1), longer):
        with pytest.raises(RecipeError, match="started with other settings"):
            run_training(other, tmp_path, resume=True)
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        run_training(recipe, tmp_path)
    assert (tmp_path / STATE_FILE).read_bytes() == state


def test_stages_that_have_not_begun_may_be_changed_and_added(
    recipe: LoopRecipe, unbroken: dict[str, Tensor], tmp_path: Path
) -> None:
    shorter = dataclasses.replace(recipe.stages["corrector"], steps=2)
    first = with_stages(recipe, corrector=shorter, joint=None)
    assert run_training(first, tmp_path, stop_after=8) is None
    assert run_training(with_stages(recipe, joint=None), tmp_path, resume=True) is not None
    assert_equal(run_training(recipe, tmp_path, resume=True), unbroken)


def test_a_run_moved_without_its_optimizer_goes_on(
    recipe: LoopRecipe,
    unbroken: dict[str, Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_training(recipe, tmp_path, stop_after=4)
    (moments,) = tmp_path.glob("optimizer-*.pt")
    moments.unlink()
    tensors = run_training(recipe, tmp_path, resume=True)
    assert "starts with new moments" in caplog.text
    assert tensors is not None and tensors.keys() == unbroken.keys()


def test_a_run_starts_from_weights_that_exist(
    recipe: LoopRecipe, finished: Path, unbroken: dict[str, Tensor], tmp_path: Path
) -> None:
    start = str(finished / "checkpoint.safetensors")
    run_training(dataclasses.replace(recipe, init_from=start), tmp_path / "same", stop_after=0)
    wider = dataclasses.replace(recipe.architecture, code_size=12)
    changed = dataclasses.replace(recipe, init_from=start, architecture=wider)
    run_training(changed, tmp_path / "wider", stop_after=0)
    for run, fits in (("same", True), ("wider", False)):
        (file,) = (tmp_path / run).glob("weights-*.pt")
        networks = torch.load(file)["networks"]
        assert torch.equal(
            networks["predictor"]["head.0.weight"], unbroken["predictor.head.0.weight"]
        )
        conditioned = networks["sftmd"]["SFT-residual1.sft1.mul_conv1.weight"]
        theirs = unbroken["sftmd.SFT-residual1.sft1.mul_conv1.weight"]
        assert (conditioned.shape == theirs.shape) is fits
    with pytest.raises(CheckpointError, match="unknown weights 'nowhere'"):
        run_training(dataclasses.replace(recipe, init_from="nowhere"), tmp_path / "none")


def test_compiled_networks_are_trained_alike(
    recipe: LoopRecipe, unbroken: dict[str, Tensor], tmp_path: Path
) -> None:
    # What the compiler makes of a network is its own affair (and takes a minute here).
    with torch.compiler.set_stance("force_eager"):
        compiled = run_training(dataclasses.replace(recipe, compile=True), tmp_path)
    assert_equal(compiled, unbroken)


def test_a_run_that_cannot_be_resumed_says_why(recipe: LoopRecipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run.*without --resume"):
        run_training(recipe, tmp_path / "none", resume=True)
    run_training(recipe, tmp_path, stop_after=1)
    state = tmp_path / STATE_FILE
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(InputError, match=r"state\.json' cannot be read"):
        run_training(recipe, tmp_path, resume=True)


def test_a_run_goes_on_only_with_its_own_images(recipe: LoopRecipe, tmp_path: Path) -> None:
    (images,) = recipe.data
    run = tmp_path / "run"
    run_training(recipe, run, stop_after=2)
    moved = Path(shutil.copytree(images, tmp_path / "moved"))
    for change in ("more", "fewer", "other"):
        changed = Path(shutil.copytree(images, tmp_path / change))
        if change == "fewer":
            (changed / "0.png").unlink()
        else:
            write_rgb(photo(64, 50, seed=9), changed / f"{9 if change == 'more' else 1}.png")
        with pytest.raises(RecipeError, match=r"trained on other images \(3 of checksum"):
            run_training(dataclasses.replace(recipe, data=(changed,)), run, resume=True)
    # Where the same images lie does not matter: runs move between machines.
    run_training(dataclasses.replace(recipe, data=(moved,)), run, resume=True, stop_after=1)


def test_a_run_goes_on_with_the_basis_that_it_began_with(
    recipe: LoopRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_training(recipe, tmp_path / "first")
    run_training(recipe, tmp_path / "run", stop_after=7)
    fit = KernelBasis.fit

    def fitted_elsewhere(*args: Any, **kwargs: Any) -> KernelBasis:
        basis = fit(*args, **kwargs)
        return dataclasses.replace(basis, components=-basis.components)

    monkeypatch.setattr(KernelBasis, "fit", fitted_elsewhere)
    assert_equal(run_training(recipe, tmp_path / "run", resume=True), first)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_training_that_diverges_stops_and_keeps_its_last_state(
    recipe: LoopRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    run_training(recipe, tmp_path, stop_after=1)
    before = (tmp_path / STATE_FILE).read_bytes()

    def diverged(stage: PredictorStage, inputs: StageInputs) -> Tensor:
        return torch.stack([p.sum() for p in stage.module.parameters()]).sum() * value

    monkeypatch.setattr(PredictorStage, "loss", diverged)
    with pytest.raises(
        TrainingError, match=r"not finite after step 2 of 'predictor'.*learning_rate"
    ):
        run_training(recipe, tmp_path, resume=True)
    assert (tmp_path / STATE_FILE).read_bytes() == before


@pytest.mark.parametrize("damage", ["nan", "integers", "missing", "shape", "step", "moments"])
def test_a_damaged_state_is_refused(recipe: LoopRecipe, tmp_path: Path, damage: str) -> None:
    run_training(recipe, tmp_path, stop_after=2)
    pointer = json.loads((tmp_path / STATE_FILE).read_text())
    weights = torch.load(tmp_path / pointer["weights"], weights_only=True)
    tensors = weights["networks"]["sftmd"]
    name = next(iter(tensors))
    match damage:
        case "nan":
            tensors[name].view(-1)[0] = math.nan
        case "integers":
            tensors[name] = tensors[name].to(torch.int8)
        case "missing":
            del tensors[name]
        case "shape":
            tensors[name] = tensors[name][..., :-1]
        case "step":
            pointer["step"] = "two"
        case "moments":
            torch.save({"state": {}, "param_groups": []}, tmp_path / pointer["optimizer"])
    torch.save(weights, tmp_path / pointer["weights"])
    (tmp_path / STATE_FILE).write_text(json.dumps(pointer))
    with pytest.raises(
        (InputError, CheckpointError), match=r"cannot be read|state does not|damaged"
    ):
        run_training(recipe, tmp_path, resume=True)


def test_a_later_stage_that_cannot_run_is_refused_before_the_first(
    recipe: LoopRecipe, tmp_path: Path
) -> None:
    # The images have 50 pixels on their shorter side; x4 makes 64 of a patch of 16.
    later = dataclasses.replace(recipe.stages["corrector"], patch=16)
    with pytest.raises(RecipeError, match="as large as a crop of 64 pixels"):
        run_training(with_stages(recipe, corrector=later), tmp_path)
    assert not (tmp_path / STATE_FILE).exists()


def test_what_starts_at_random_is_named_once(
    recipe: LoopRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    networks = new_networks(dataclasses.replace(recipe.architecture, code_size=4), seed=7)
    save_checkpoint(networks, tmp_path / "other.safetensors")
    started = started_networks(recipe.architecture, 0, "other.safetensors", tmp_path)
    said = "\n".join(record.message for record in caplog.records)
    assert said.count("start at random") == 1
    assert "another kernel basis" in said
    for name, module in started.modules().items():
        theirs = dict(networks.modules()[name].named_parameters())
        for key, value in module.named_parameters():
            fits = value.shape == theirs[key].shape
            assert not fits or torch.equal(value, theirs[key])
            assert (f"{name}.{key}" in said) == (not fits)


@pytest.mark.parametrize("design", ["compact", "film"])
def test_a_start_with_levels_is_the_same_function(tmp_path: Path, design: Design) -> None:
    plain = dataclasses.replace(small_architecture(design), code_size=10, levels=0)
    source = new_networks(plain, seed=7)
    save_checkpoint(source, tmp_path / "plain.safetensors")
    settings = dataclasses.replace(plain, code_size=12, levels=2)
    started = started_networks(settings, 0, "plain.safetensors", tmp_path)
    assert isinstance(started, IkcNetworks)
    lr = torch.rand(2, 3, 24, 24)
    code = torch.from_numpy(source.basis.code_of_sigma([1.0, 2.5]))
    longer = torch.cat((code, torch.rand(2, 2)), dim=1)
    torch.testing.assert_close(started.sftmd(lr, longer), source.sftmd(lr, code))
    expected = torch.nn.functional.pad(source.predictor(lr), (0, 2))
    torch.testing.assert_close(started.predictor(lr), expected)
    sr = source.sftmd(lr, code)
    torch.testing.assert_close(started.corrector(sr, longer)[:, :10], source.corrector(sr, code))
    torch.testing.assert_close(started.corrector(sr, longer)[:, 10:], longer[:, 10:])


def test_weights_of_another_design_are_no_start(recipe: LoopRecipe, tmp_path: Path) -> None:
    other = dataclasses.replace(recipe.architecture, design="reference")
    save_checkpoint(new_networks(other, seed=7), tmp_path / "other.safetensors")
    reason = r"'other.safetensors'.*no tensor of its predictor fits"
    with pytest.raises(RecipeError, match=reason):
        started_networks(recipe.architecture, 0, "other.safetensors", tmp_path)


def test_weights_of_another_scale_start_all_but_the_last_layer(tmp_path: Path) -> None:
    source = new_networks(small_architecture("film"), seed=7)
    save_checkpoint(source, tmp_path / "x4.safetensors")
    settings = dataclasses.replace(source.architecture, scale=2)
    started = started_networks(settings, 0, "x4.safetensors", tmp_path)
    assert isinstance(started, IkcNetworks)
    same = dict(source.sftmd.named_parameters())
    random = {
        name
        for name, value in started.sftmd.named_parameters()
        if value.shape != same[name].shape or not torch.equal(value, same[name])
    }
    assert random == {"conv_output.weight", "conv_output.bias"}
    lr = torch.rand(2, 3, 24, 24)
    ours, theirs = started.predictor, source.predictor
    assert isinstance(ours, SinglePredictor) and isinstance(theirs, SinglePredictor)
    # The same blur in LR pixels, the same levels.
    torch.testing.assert_close(ours.estimates(lr)[0] / 2, theirs.estimates(lr)[0] / 4)
    torch.testing.assert_close(ours.estimates(lr)[1], theirs.estimates(lr)[1])


def test_the_estimators_of_the_film_design_fit_the_compact_one(tmp_path: Path) -> None:
    film = new_networks(small_architecture("film"), seed=7)
    save_checkpoint(film, tmp_path / "film.safetensors")
    settings = dataclasses.replace(film.architecture, design="compact")
    started = started_networks(settings, 0, "film.safetensors", tmp_path)
    assert isinstance(started, IkcNetworks)
    lr, sr = torch.rand(2, 3, 24, 24), torch.rand(2, 3, 96, 96)
    code = film.predictor(lr)
    torch.testing.assert_close(started.predictor(lr), code)
    torch.testing.assert_close(started.corrector(sr, code), film.corrector(sr, code))


def test_the_learning_rate_is_constant_before_its_cooldown() -> None:
    settings = LoopStageRecipe(
        steps=1000, batch=1, patch=16, learning_rate=0.2, warmup=10, cooldown=0.3
    )
    rates = [settings.rate(step) for step in range(1000)]
    assert set(rates[10:701]) == {0.2}
    assert rates[850] == pytest.approx(0.2 * 0.505) and rates[-1] == pytest.approx(0.002, rel=1e-2)


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    settings = LoopStageRecipe(steps=1000, batch=1, patch=16, learning_rate=0.2, warmup=10)
    rates = [settings.rate(step) for step in range(1000)]
    # Over the first steps the cosine has not begun to turn.
    assert rates[:10] == pytest.approx([0.02 * (n + 1) for n in range(10)], rel=1e-3)
    assert rates[250] == pytest.approx(0.2 * (0.01 + 0.99 * (2 + 2**0.5) / 4))
    assert rates[500] == pytest.approx(0.2 * 0.505)
    assert rates[-1] == pytest.approx(0.002, rel=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)
