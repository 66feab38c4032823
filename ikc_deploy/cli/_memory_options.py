"""The options that bound memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar, cast

import click

from ikc_deploy.runtime.tiling import Tile, TileSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)I?B?")
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def memory_options(command: _Command) -> _Command:
    """Decorator: `--tile` and `--max-memory`, as one parameter `tiles`; inside `reports_errors`."""

    @click.option(
        "--tile",
        metavar="SIDE",
        default="auto",
        show_default=True,
        callback=_tile,
        help="Cut frames into tiles of so many pixels of the input; auto: if memory calls for it; "
        "none: never.",
    )
    @click.option(
        "--max-memory",
        metavar="SIZE",
        callback=_bytes,
        help="What auto may use for a frame, as 800M or 4G.  [default: half of what is free]",
    )
    @wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        tiles = TileSettings(kwargs.pop("tile"), kwargs.pop("max_memory"))
        return command(*args, **kwargs, tiles=tiles)

    return cast("_Command", gathered)


def _tile(_: click.Context, __: click.Parameter, text: str) -> Tile:
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word == "none":
        return None
    if not word.isdecimal():
        raise click.BadParameter(f"'{text}' is no tile; write auto, none or a side as 256")
    return int(word)


def _bytes(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    size = _SIZE.fullmatch(text.strip().upper())
    if size is None:
        raise click.BadParameter(f"'{text}' is no size; write 800M or 4G")
    return int(float(size[1]) * _UNITS[size[2]])
