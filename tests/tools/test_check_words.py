"""The list of banned phrases, and the check of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_words import RULES, Finding, check, check_file, checked_files


def findings(folder: Path, name: str, text: str) -> list[Finding]:
    (folder / name).write_text(text, encoding="utf-8")
    return check_file(folder / name, Path(name))


def test_the_repository_has_no_banned_phrase(repository: Path) -> None:
    assert [str(finding) for finding in check(repository)] == []


def test_every_area_is_checked_but_not_records_and_results(repository: Path) -> None:
    names = {path.as_posix() for path in checked_files(repository)}
    for name in ("README.md", "docs/video.md", "ikc_deploy/cli/ikc_eval.py", "training/x4.toml"):
        assert name in names
    assert not [name for name in names if name.startswith(("docs/adr", "benchmarks/results"))]


def test_comments_docstrings_and_messages_are_checked_and_identifiers_are_not(
    tmp_path: Path,
) -> None:
    code = (
        '"""It mends itself."""\n'
        "\n"
        "ticket = 1  # a contestant\n"
        "# gone\n"
        "# on with\n"
        'message = f"{count} is no "\n'
        'other = ("it is no "\n'
        '    "size")\n'
    )
    found = [(finding.line, finding.phrase) for finding in findings(tmp_path, "a.py", code)]
    assert found[:3] == [(1, "mends"), (3, "contestant"), (4, "gone on with")]
    assert [line for line, _ in found[3:]] == [7]


def test_code_between_two_texts_separates_them(tmp_path: Path) -> None:
    assert findings(tmp_path, "a.py", 'print("it is no ", end, "size")\n') == []


def test_names_in_an_f_string_are_no_text_but_strings_in_it_are(tmp_path: Path) -> None:
    code = (
        "a = f\"{ticket.dear:{dwell}} {{dear}} {1 if alike else 'anew'}\"\n"
        'b = rf"""{\nticket\n} mended"""\n'
    )
    found = [(finding.line, finding.phrase) for finding in findings(tmp_path, "a.py", code)]
    assert found == [(1, "dear"), (1, "anew"), (4, "mended")]


def test_prose_is_checked_across_lines(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, "a.md", "First.\nA run that is gone on\nwith again.\n")
    assert str(finding).startswith("a.md:2: 'gone on with': write ")
    assert finding.rule.reason in str(finding)


@pytest.mark.parametrize("name", ["a.md", "a.py"])
def test_standard_words_pass(tmp_path: Path, name: str) -> None:
    text = "# There is no size; recommended, amended, dearly, traces, favourite, ticketing.\n"
    text += "# It goes on the GPU.\n"
    assert findings(tmp_path, name, text) == []


def test_every_rule_compiles_and_has_a_reason() -> None:
    for rule in RULES:
        rule.compiled()
        assert rule.instead
        assert rule.reason
    assert len({rule.pattern for rule in RULES}) == len(RULES)
