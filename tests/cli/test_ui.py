from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from rich.console import Console

from ikc_deploy.cli._command import reports_errors
from ikc_deploy.cli._ui import note_skipped, print_table, progress_bars, say, warn
from ikc_deploy.errors import InputError
from ikc_deploy.text import escape_controls
from tests.cli.running import invoke

NAME = os.fsdecode(b"caf\xe9 \xe2\x82\xac.png")
PROGRAM = f"""
import os, sys, click
from ikc_deploy.cli._command import reports_errors
from ikc_deploy.cli._ui import note, result, say, warn
from ikc_deploy.errors import InputError

@click.command()
@reports_errors
def main():
    name = os.fsdecode({os.fsencode(NAME)!r}) + " \\u20ac"
    for show in (say, click.echo, print, result, note, warn):
        show(name)
    raise InputError(name)

main()
"""


@pytest.mark.parametrize(
    "encoding",
    [
        "ascii",
        "ascii:surrogateescape",
        "utf-8:strict",
        "utf-8:surrogateescape",
        "latin-1",
        "utf-16",
    ],
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_no_name_ends_a_command_on_any_terminal(encoding: str, locale: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": locale}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        env=environment | {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr and b"Unicode" not in done.stderr
    shown = done.stdout.decode(encoding.partition(":")[0], "replace")
    assert [line.startswith("caf") for line in shown.splitlines() if line] == 4 * [True]
    if encoding == "utf-8:strict":
        assert "caf\N{REPLACEMENT CHARACTER} " in shown


def test_control_characters_of_names_are_shown_and_not_sent() -> None:
    @click.command()
    @reports_errors
    def command() -> None:
        say("a\x1b[31m\r\x9bm.png")
        warn("b\x1b]0;title\x07.png")
        raise InputError("c\x08.png\nd.png")

    result = invoke(command)
    assert result.stdout == "a\\x1b[31m\\r\\x9bm.png\n"
    assert result.stderr == "warning: b\\x1b]0;title\\x07.png\nerror: c\\x08.png\nd.png\n"
    assert escape_controls("Zürich 東京 [x].png") == "Zürich 東京 [x].png"


def test_what_is_skipped_in_a_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "._a.png", ".DS_Store", "x.xcf", "y.txt"):
        (tmp_path / name).touch()
    (tmp_path / "b.png").mkdir()
    (tmp_path / "c.png").symlink_to("gone")
    note_skipped([tmp_path, tmp_path / "a.png"])
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(", ")[2] for line in lines] == [
        "hidden: ._a.png, .DS_Store",
        "folders (name them as inputs to include them): b.png",
        "broken links or special files: c.png",
        "other formats, by their suffix: x.xcf, y.txt",
    ]


@pytest.mark.parametrize("width", [20, 80])
def test_no_digit_is_lost_on_a_narrow_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr("ikc_deploy.cli._ui._stdout", Console(file=written, width=width))
    numbers = [f"{30 + column / 100:.2f}" for column in range(12)]
    title = "Set[5], \\ as it is"
    print_table(title, ("", *map(str, range(12))), [("[red]sigma 1.8", *numbers)])
    lines = written.getvalue().splitlines()
    assert lines[0] == title
    assert lines[-2].split() == ["[red]sigma", "1.8", *numbers]


def test_bars_show_counts_text_and_the_time_left_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for terminal in (True, False):
        written = io.StringIO()
        console = Console(file=written, force_terminal=terminal, width=120)
        monkeypatch.setattr("ikc_deploy.cli._ui._stderr", console)
        with progress_bars(keep=True) as bars:
            bars.show("images", 0, 4, "a[1]\x1b.png")
            bars.show("images", 2, 4, "b[2].png")
        shown = written.getvalue()
        if terminal:
            assert "2/4" in shown and "b[2].png" in shown and ":--" in shown
            assert "a[1]\x1b" not in shown
        else:
            assert shown == ""
