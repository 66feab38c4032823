"""The campaign of tools/torture: a short form, what it would notice, and its figures in docs."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ikc_deploy.errors import IkcError
from tools.torture.campaign import BATCH, run_campaign
from tools.torture.commands import Ended, Fault, WritingCommand, check_end
from tools.torture.disturbances import (
    killed,
    measured,
    new_place,
    twice_at_once,
)
from tools.torture.material import Material
from tools.torture.readers import damage
from tools.torture.report_page import damaged_files, filled

SHORT = ("read picture", "picture, kill")


def test_a_short_campaign_finds_nothing(tmp_path: Path) -> None:
    report = run_campaign(tmp_path / "short", seed=1, seconds=0, only=SHORT)
    assert report["faults"] == []
    assert set(report["kinds"]) == set(SHORT)
    assert damaged_files(report) == BATCH


@dataclass(frozen=True)
class ScriptCommand(WritingCommand):
    """A Python script instead of a command; its argument is the output."""

    script: str = ""

    def line(self, material: Material, variant: int, out: Path) -> list[str]:
        return [sys.executable, "-c", self.script, str(out), str(variant)]


def careless(script: str) -> ScriptCommand:
    head = "import os, sys, time; out, variant = sys.argv[1:]\n"
    return ScriptCommand(
        "careless", "none", "out.txt", lambda *_: [], Path.read_text, script=head + script
    )


IN_PLACE = """
file = open(out, 'w')
for letter in variant * 20:
    file.write(letter)
    file.flush()
    time.sleep(0.02)
"""
LITTER = "open(out + '.tmp', 'w').write('')\nopen(out, 'w').write(variant)"


def test_an_output_that_is_written_in_place_is_noticed(tmp_path: Path) -> None:
    reference = measured(careless(IN_PLACE), Material(tmp_path), tmp_path / "reference")
    found = set()
    for number in range(6):
        source = random.Random(number)
        try:
            killed(new_place(reference, tmp_path / f"{number}", source), source)
        except Fault as fault:
            found.add(str(fault).split(":")[1].strip())
    assert "the output is neither old nor new" in found


def test_what_is_left_behind_is_noticed(tmp_path: Path) -> None:
    reference = measured(careless(LITTER), Material(tmp_path), tmp_path / "reference")
    source = random.Random(0)
    with pytest.raises(Fault, match=r"left behind: out.txt.tmp"):
        twice_at_once(new_place(reference, tmp_path / "place", source), source)


def test_an_end_that_is_none_is_noticed() -> None:
    check_end(Ended(0, "a warning"))
    check_end(Ended(2, "error: no such file"))
    for code, errors in (
        (1, "error"),
        (-11, ""),
        (2, " \n"),
        (0, "Traceback (most recent call last):\n"),
        (2, "Traceback (most recent call last):\n"),
    ):
        with pytest.raises(Fault):
            check_end(Ended(code, errors))
    with pytest.raises(Fault, match="exit code 2"):
        check_end(Ended(2, "error: the disk is full"), (0,))


def test_an_exception_that_is_not_the_packages_own_is_a_failure(tmp_path: Path) -> None:
    def attempt(source: random.Random) -> None:
        raise source.choice((IkcError("said"), ValueError("not ours"), IkcError("")))

    found = damage(attempt, "seed", 60, tmp_path / "progress")
    assert found["outcomes"]["refused"] + found["outcomes"]["failed"] == 60
    assert any("not ours" in text for text in found["failures"])
    assert any("without a message" in text for text in found["failures"])
    assert (tmp_path / "progress").read_text().strip() == "59"


def test_the_figures_in_the_docs_are_those_that_were_found(repository: Path) -> None:
    path = repository / "benchmarks" / "results" / "torture.json"
    report = json.loads(path.read_text()) if path.exists() else None
    text = (repository / "docs" / "reliability.md").read_text()
    assert filled(text, report) == text
    if report is not None:
        assert f"damaged files read: {damaged_files(report)};" in text
        assert report["faults"] == []
