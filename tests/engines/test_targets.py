from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikc_deploy import InputError
from ikc_deploy.bundle.engine_store import Profile
from ikc_deploy.engines.targets import Target, parse_shape, parse_shapes, read_target

SIDES = st.lists(st.integers(8, 4000), min_size=3, max_size=3).map(sorted)
BATCHES = st.lists(st.integers(1, 32), min_size=3, max_size=3).map(sorted)


@given(BATCHES, SIDES, SIDES)
def test_shapes_are_read_as_they_are_written(
    batches: list[int], heights: list[int], widths: list[int]
) -> None:
    shapes = list(zip(batches, heights, widths, strict=True))
    text = ":".join(f"{n}x{h}x{w}" for n, h, w in shapes)
    assert parse_shapes(text) == Profile(*shapes)
    assert parse_shape(f"{heights[0]}x{widths[0]}") == (1, heights[0], widths[0])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("64x64:540x960", "invalid shapes '64x64:540x960': expected MIN:OPT:MAX"),
        (
            "64:256:540",
            "invalid shape '64': expected HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH in LR pixels",
        ),
        ("64x64:-1x256:540x960", "invalid shape '-1x256'"),
        ("64x64:32x256:540x960", "min <= opt <= max must hold, got 64, 32, 540 for the height"),
        ("4x64x64:1x64x64:1x64x64", "got 4, 1, 1 for the batch"),
        ("0x64:8x64:8x64", "whole numbers from 1 to 65536"),
    ],
)
def test_shapes_that_are_none_say_why(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_shapes(text)


@pytest.mark.parametrize("name", ["rtx-desktop", "hopper", "jetson-orin"])
def test_the_targets_of_the_checkout_are_valid_and_documented(repository: Path, name: str) -> None:
    target = read_target(repository / "engines" / f"{name}.toml")
    assert target.compute_capabilities and target.workspace_mib
    assert f"({name}.toml)" in (repository / "engines" / "README.md").read_text()


def test_settings_left_out_have_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    assert read_target(tmp_path / "empty.toml") == Target()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("workspace = 3", "unknown settings workspace; known are builder_level"),
        ('compute_capabilities = ["8.x"]', "strings such as \"8.9\", got '8.x'"),
        ("compute_capabilities = [8.9]", r"compute_capabilities\[0\] must be a text, got 8\.9"),
        ("workspace_mib = 0", "workspace_mib must lie in 1 to .*got 0"),
        ("builder_level = 6", "builder_level must lie in 0 to 5, got 6"),
        ("timing_cache = 1", "true or false"),
        ("profiles = []", "at least one range"),
        ("[[profiles]]\nmin = [1, 64, 64]", "missing settings opt, max"),
        (
            "[[profiles]]\nmin=[1,64]\nopt=[1,64,64]\nmax=[1,64,64]",
            "min must be a list of 3, each a whole",
        ),
        ("[[profiles]]\nmin=[1,4,64]\nopt=[1,64,64]\nmax=[1,64,64]", "at least 8 pixels"),
        (
            "[[profiles]]\nmin=[1,64,64]\nopt=[1,64,64]\nmax=[1,64,32]",
            "got 64, 64, 32 for the width",
        ),
        ("min = ", "is not valid TOML"),
        ("profiles = [[1]]", r"profiles\[0\] must be a table"),
        ("builder_level = true", "builder_level must be a whole number, got True"),
        ("workspace_mib = 99999999999999999999", "workspace_mib must lie in"),
        (
            "[[profiles]]\nmin=[1,64,64]\nopt=[1,64,64]\nmax=[1,64,9999999]",
            "whole numbers from 1 to 65536",
        ),
        ("a = " + 3000 * "[", "is not valid TOML"),
    ],
)
def test_an_impossible_target_names_the_file_and_the_setting(
    tmp_path: Path, content: str, sentence: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(InputError, match=rf"mine\.toml'(?s:.*){sentence}"):
        read_target(file)


def test_a_missing_target_is_named_with_those_that_are_shipped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no target file at '.*gone\.toml'; .*hopper, jets"):
        read_target(tmp_path / "gone.toml")


@pytest.mark.parametrize("name", ["rtx-desktop", "hopper", "jetson-orin"])
def test_shipped_targets_are_found_by_name_in_any_folder(
    repository: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_target(name) == read_target(repository / "engines" / f"{name}.toml")
    # A file of the user's own goes first.
    (tmp_path / name).write_text("builder_level = 1")
    assert read_target(name).builder_level == 1
