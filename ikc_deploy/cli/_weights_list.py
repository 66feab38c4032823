"""The list of shipped weights: what each is for, its figures and its size, from its card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ikc_deploy.weights import DEFAULT_WEIGHTS, shipped_weights


@dataclass(frozen=True)
class WeightsEntry:
    """Shipped weights, as their card describes them."""

    name: str
    """Name for `--weights`."""
    default: bool
    """Whether they are used if none are named."""
    purpose: str
    """First sentence of the card; empty without a card."""
    knows: str
    """Degradations that they were trained for; empty if the card does not say."""
    figures: str
    """Mean PSNR-Y of bicubic upscaling and of the last step on the card's first test set."""
    bytes: int
    """Size of the checkpoint."""


def list_weights() -> list[WeightsEntry]:
    """Return an entry for each of the shipped weights, by name."""
    return [_entry(name, path) for name, path in shipped_weights().items()]


def _entry(name: str, path: Path) -> WeightsEntry:
    card = path.with_suffix(".md")
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    purpose = re.search(r"^# .*\n+([^\n]*?[.:](?=\s|$))", text, re.MULTILINE)
    knows = re.search(r"^\| knows \| (.*?) \|$", text, re.MULTILINE)
    return WeightsEntry(
        name,
        name == DEFAULT_WEIGHTS,
        purpose[1].rstrip(".:") if purpose else "",
        knows[1] if knows else "",
        _figures(text),
        path.stat().st_size,
    )


def _figures(text: str) -> str:
    title = re.search(r"^### ([^\n(]*\w)", text, re.MULTILINE)
    if title is None:
        return ""
    table = text[title.end() :].partition("\n### ")[0]
    bicubic = re.search(r"^\| bicubic \| ([\d.]+)", table, re.MULTILINE)
    steps = re.findall(r"^\| (step \d+)[^|]*\| ([\d.]+)", table, re.MULTILINE)
    if bicubic is None or not steps:
        return ""
    step, value = steps[-1]
    return f"{title[1]}: {value} dB at {step} (bicubic {bicubic[1]} dB)"
