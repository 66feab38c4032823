"""Hooks of mkdocs: the list of decision records, and links to other files of the repository.

In the repository these links lead to the file (a test checks that). The site has only the pages, so
there such a link becomes its text with the path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Add the decision records to the navigation, in the order of their numbers.

    Args:
        config: Configuration of mkdocs.
    """
    records = sorted(path.name for path in (Path(config.docs_dir) / "adr").glob("*.md"))
    config.nav.append({"Decisions": [f"adr/{name}" for name in records]})
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the text of a page without links that lead out of the site.

    Args:
        markdown: Text of the page.
        page: The page of mkdocs.
    """
    folder = posixpath.dirname(page.file.src_uri)

    def inside(link: re.Match[str]) -> str:
        text, target, _anchor = link.groups()
        place = posixpath.normpath(posixpath.join(folder, target))
        is_page = place.endswith(".md") and not place.startswith("..")
        if is_page:
            return link[0]
        shown = posixpath.normpath(posixpath.join("docs", folder, target))
        return text if text.strip("`") == shown else f"{text} (`{shown}`)"

    return _LINK.sub(inside, markdown)
