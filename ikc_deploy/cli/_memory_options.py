"""Options that limit memory."""

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
    """Add `--tile` and `--max-memory` to a command, as one parameter `tiles: TileSettings`.

    Apply it inside `reports_errors`.
    """

    @click.option(
        "--tile",
        metavar="SIDE",
        default="auto",
        show_default=True,
        callback=_tile,
        help="Side of the tiles that frames are cut into, in pixels of the input; auto: tiles only "
        "if memory requires them; none: never.",
    )
    @click.option(
        "--max-memory",
        metavar="SIZE",
        callback=_bytes,
        help="Memory that auto may use for a frame, for example 800M or 4G.  "
        "[default: half of the free memory]",
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
        raise click.BadParameter(
            f"invalid tile '{text}': expected auto, none or a side, for example 256"
        )
    return int(word)


def _bytes(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    size = _SIZE.fullmatch(text.strip().upper())
    if size is None:
        raise click.BadParameter(f"invalid size '{text}': expected for example 800M or 4G")
    return int(float(size[1]) * _UNITS[size[2]])
