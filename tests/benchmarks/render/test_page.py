from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ikc_deploy.benchmarks.render.page import to_html
from ikc_deploy.imaging.reading import read_rgb
from tests.benchmarks.reports import MACHINE, report


class Page(HTMLParser):
    """Headings, cells, and everything that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.cells: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "img", "br"}:
            self.open.append(tag)
        if tag in {"link", "script", "img", "iframe", "object", "embed"}:
            self.fetched.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href"} and not str(value).startswith("#"):
                self.fetched.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        self.text += data


def test_the_page_holds_every_figure_and_loads_nothing() -> None:
    text = to_html(report())
    page = Page(text)
    assert page.open == [] and page.fetched == []
    assert "@import" not in text and "url(http" not in text
    assert page.headings == [
        "Machine",
        "Latency by size",
        "x4-lite: figures",
        "x4-lite: where the time goes",
        "Ratios pair by pair",
        "Quality against speed",
        "Did not run",
    ]
    for result in report().results:
        for entry in result.measurements:
            assert f"{entry.latency_ms.median:.1f}" in page.cells
    assert {"0.50", "30.88"} <= set(page.cells)
    assert str(MACHINE["cpu"]) in page.text  # its < and > arrive as text
    assert "no compiler <here>" in page.text
    # Time is proportional to pixels in this report; the slope stands in the chart as text.
    assert text.count("slope 1.00") == 2


def test_equal_reports_give_equal_pages() -> None:
    assert to_html(report()) == to_html(report())


@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_shows_the_page(tmp_path: Path, width: int) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("needs a browser: apt-get install chromium")
    (tmp_path / "page.html").write_text(to_html(report()))
    command = [
        *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        # No network: whatever the page asked for would be missing.
        *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"),
        *(f"--window-size={width},2400", f"--screenshot={tmp_path / 'page.png'}"),
        (tmp_path / "page.html").as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    shown = read_rgb(tmp_path / "page.png").astype(int)
    assert shown.shape == (2400, width, 3)
    # matplotlib's first two colours: the lines of the chart and the bars of the stages.
    for colour in ((31, 119, 180), (255, 127, 14)):
        near = np.abs(shown - colour).max(axis=2) < 24
        columns = np.nonzero(near)[1]
        assert near.sum() > 200
        # Charts fill the window, and where it is narrow they scroll.
        assert np.ptp(columns) > 0.3 * min(width, 992)
