"""Every way to run an upscaler has the defaults of `UpscalerOptions`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest

import ikc_deploy
from ikc_deploy import Bundle, InputError, Upscaler, UpscalerOptions
from ikc_deploy.batch.settings import ActorSettings
from ikc_deploy.cli import ikc_bench, ikc_eval, ikc_upscale
from ikc_deploy.cli._upscale_video import VideoOptions
from ikc_deploy.option_fields import OptionField, option_fields
from ikc_deploy.runtime.options import CLIP_ESTIMATE
from ikc_deploy.runtime.tiling import TileSettings
from ikc_deploy.serving.repository import write_repository
from ikc_deploy.video.encoder_settings import EncoderSettings
from tests.half import half_bundle

OPTIONS: dict[str, OptionField] = option_fields(UpscalerOptions) | option_fields(TileSettings)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return half_bundle(tmp_path / "half")


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def test_load_takes_every_option_with_its_default() -> None:
    expected = {name: field.default for name, field in OPTIONS.items()}
    assert MISSING not in expected.values()
    assert defaults(ikc_deploy.load) == expected | {"bundle": None, "weights": None}
    made = defaults(Upscaler.__init__)
    assert made.pop("tiles") is None
    assert made.pop("others") == ()
    taken = ("iters", "streams", "estimate", "early_stop", "self_ensemble")
    assert made == {name: expected[name] for name in taken}


def test_a_stream_and_video_track() -> None:
    assert defaults(Upscaler.stream)["estimate"] == CLIP_ESTIMATE
    help_text = OPTIONS["estimate"].option.default
    assert help_text == f"{UpscalerOptions.estimate}; for clips, {CLIP_ESTIMATE}"


def test_actors_of_ray_take_the_same_options() -> None:
    assert ActorSettings(Path("bundle")).options == UpscalerOptions()


def test_triton_corrects_as_often(bundle: Bundle, tmp_path: Path) -> None:
    with ikc_deploy.load(bundle, threads=1) as upscaler:
        iters = upscaler.iters
    models = write_repository(bundle, tmp_path / "models")
    text = " ".join((models["ikc"] / "config.pbtxt").read_text().split())
    assert f'key: "default_iters" value: {{ string_value: "{iters}"' in text.replace(
        "value {", "value: {"
    )


@pytest.mark.parametrize(
    ("command", "other"),
    [
        (ikc_upscale.main, {}),
        # Its --precision is that of the exported graphs.
        (ikc_bench.main, {"iters", "precision"}),
        # Figures of evaluations are comparable at the paper's number of corrections.
        (ikc_eval.main, {"iters"}),
    ],
)
def test_commands_have_the_same_defaults(command: Any, other: set[str]) -> None:
    known = OPTIONS | option_fields(EncoderSettings) | option_fields(VideoOptions)
    found = {
        parameter.name: parameter.default
        for parameter in command.params
        if parameter.name in known and parameter.name not in other
    }
    assert {"backend", "threads"} & set(found)
    for name, default in found.items():
        shown = None if repr(default).startswith("Sentinel") else default
        assert shown == known[name].default, name


def test_a_wrong_option_is_refused_before_a_bundle_is_opened() -> None:
    for wrong in (
        {"threads": -1},
        {"streams": 0},
        {"estimate": "all"},
        {"cuda_graph": "no"},
        {"cuda_graph": True},
        {"early_stop": -0.1},
        {"early_stop": "never"},
    ):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} must (be|lie)"):
            ikc_deploy.load("no-such-bundle", **wrong)
