"""Check comments, docstrings, messages and prose for banned phrases: `python -m tools.check_words`.

Checked are the comments and string literals of Python files, and Markdown and TOML files as they
are, below `PLACES`; identifiers are not. `RULES` has every phrase, what to write instead, and why.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PLACES: Final = (
    "ikc_deploy",
    "tools",
    "training",
    "engines",
    "benchmarks",
    "docs",
    "README.md",
    "CONTRIBUTING.md",
)
"""Folders and files below the repository's root that are checked."""

EXCLUDED: Final = ("benchmarks/results", "docs/adr", "tools/check_words.py")
"""Folders and files in them that are not: measurements, records of decisions, the list itself."""

SUFFIXES: Final = (".py", ".md", ".toml")

_TEXT_TOKENS: Final = ("COMMENT", "STRING", "FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")

_JOINTS: Final = re.compile(r"""[\"'][ \n]+[rf]?[\"']|\n *#""")
"""Ends of one line of text and beginnings of the next: adjacent literals, lines of a comment."""


@dataclass(frozen=True)
class Rule:
    """A banned phrase."""

    pattern: str
    """Regular expression, matched in any case; a space in it also matches line breaks."""
    instead: str
    """Words to write instead."""
    reason: str
    """Reason for the ban."""

    def compiled(self) -> re.Pattern[str]:
        """Return the pattern; a space in it matches any run of spaces and line breaks."""
        return re.compile(self.pattern.replace(" ", r"\s+"), re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """A banned phrase in a file."""

    path: Path
    line: int
    phrase: str
    rule: Rule

    def __str__(self) -> str:
        """Return `file:line: phrase, what to write instead (reason)`."""
        return (
            f"{self.path.as_posix()}:{self.line}: '{self.phrase}': "
            f"write {self.rule.instead} ({self.rule.reason})"
        )


RULES: Final = (
    Rule(
        r"(?<!there\s)\bis no (size|number|pictures?|time|rate|tile)\b",
        '"invalid ..." and an example',
        "a message states what is wrong, the value and what to do",
    ),
    Rule(r"\bgone on with\b", '"resumed" or "continued"', "not standard English"),
    Rule(r"\bhears? of\b", '"is notified of" or "receives"', "code does not hear"),
    Rule(r"\bbe had\b", '"available"', "archaic"),
    Rule(r"\bmend(s|ed|ing)?\b", '"fix"', "the usual word for software"),
    Rule(r"\bso many times\b", '"n times" with the name of the number', "states no number"),
    Rule(r"\bwhatever it is\b", '"any ..." with the noun', "names nothing"),
    Rule(r"\blaid out\b", '"arranged" or "structured"', "a layout is a memory order here"),
    Rule(r"\bleft all bounds\b", '"diverged"', "the term of optimization"),
    Rule(r"\bdear\b", '"expensive"', "archaic for a cost"),
    Rule(r"\bcontestants?\b", '"candidate"', "one term for one thing (docs/glossary.md)"),
    Rule(r"\bflavou?rs?\b", '"TensorRT variant"', "one term for one thing (docs/glossary.md)"),
    Rule(r"\bdwell(s|ed|ing)?\b", '"stay" or "delay"', "archaic"),
    Rule(r"\btickets?\b", '"future"', "the standard library's term"),
    Rule(r"\b(the|a) races?\b", '"the candidates\' turns"', "a race is a bug between threads"),
    Rule(r"\bput right\b", '"fixed" or "repaired"', "one verb is shorter and searchable"),
    Rule(r"\banew\b", '"again"', "literary"),
    Rule(r"\bwhoever\b", '"the process that" or "the caller that"', "the actor has a name"),
    Rule(r"\balike\b", '"equal", "similar" or "both"', "does not say which"),
    Rule(r"\bof ours\b", '"own" with the noun', "the noun is missing"),
    Rule(r"\bgo(es)? on\b(?! (the|a|an) )", '"continue"', "one verb is shorter and searchable"),
    Rule(r"\bstands? for\b", '"is", "represents" or "replaces"', "does not say which"),
    Rule(r"\btells?\b", '"states", "returns" or "distinguishes"', "code does not speak"),
    Rule(r"\basked for\b", '"requested"', "the usual word for arguments and work"),
    Rule(r"\bunder way\b", '"in progress" or "running"', "the usual words for work"),
    Rule(r"\bnobody\b", '"no process" or "no caller"', "the actor has a name"),
)
"""Every banned phrase. To ban another one, remove its uses first."""


def checked_text(source: str, suffix: str) -> str:
    """Return the part of a file that is checked, in its lines.

    For Python that is comments and string literals, adjacent literals joined by spaces; every other
    character but a space is replaced by a zero character, which no phrase contains.
    """
    if suffix != ".py":
        return source
    lines = source.splitlines(keepends=True)
    kept = [[char if char.isspace() else "\0" for char in line] for line in lines]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[token.type]
        if name not in _TEXT_TOKENS:
            continue
        text = _without_expressions(token.string) if name == "STRING" else token.string
        row, column = token.start
        for line in text.splitlines(keepends=True):
            kept[row - 1][column : column + len(line)] = line
            row, column = row + 1, 0
    return _JOINTS.sub(lambda joint: re.sub(r"\S", " ", joint[0]), "".join(map("".join, kept)))


def _without_expressions(literal: str) -> str:
    """Return a string literal with zero characters for the names in an f-string's expressions.

    From Python 3.12 on the tokenizer itself separates them; before, an f-string is one token.
    """
    prefix = re.match(r"[a-zA-Z]*", literal)
    if prefix is None or "f" not in prefix[0].lower():
        return literal
    depth, kept = 0, []
    # `{{` is text and opens nothing, so a `}}` in the text has nothing to close.
    for part in re.findall(r"[{}]|[^{}]+", literal.replace("{{", "  ")):
        depth = max(0, depth + {"{": 1, "}": -1}.get(part, 0))
        nested = re.split(r"""("[^"]*"|'[^']*')""", part) if depth > 0 else ["", part]
        for index, text in enumerate(nested):
            kept.append(text if index % 2 else re.sub(r"\S", "\0", text))
    return "".join(kept)


def check_file(path: Path, name: Path, rules: Sequence[Rule] = RULES) -> list[Finding]:
    """Return the banned phrases in the file `path`, reported under `name`, by line."""
    text = checked_text(path.read_text(encoding="utf-8"), path.suffix)
    found = [
        Finding(name, 1 + text.count("\n", 0, match.start()), " ".join(match[0].split()), rule)
        for rule in rules
        for match in rule.compiled().finditer(text)
    ]
    return sorted(found, key=lambda finding: finding.line)


def checked_files(root: Path) -> list[Path]:
    """Return the files below `root` that are checked, relative to it and in order."""
    found: list[Path] = []
    for place in PLACES:
        start = root / place
        found += [start] if start.is_file() else sorted(start.rglob("*"))
    names = [path.relative_to(root) for path in found if path.suffix in SUFFIXES]
    return [
        name
        for name in names
        if not any(name.is_relative_to(excluded) for excluded in EXCLUDED)
        and "__pycache__" not in name.parts
    ]


def check(root: Path) -> list[Finding]:
    """Return the banned phrases of the repository at `root`."""
    return [finding for name in checked_files(root) for finding in check_file(root / name, name)]


def main() -> int:
    """Print every banned phrase of this repository; return 1 if there is any, else 0."""
    findings = check(Path(__file__).resolve().parents[1])
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
