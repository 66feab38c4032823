"""The correction loop over three networks that a server runs, and what it refuses.

    h0 = P(lr);  sr0 = F(lr, h0);  for i in 1..t:  hi = C(sr(i-1), h(i-1));  sri = F(lr, hi)

This module travels with the model repository, so it needs numpy and `ikc_deploy.errors` alone. It
never looks into a frame: what it passes from network to network may lie on a GPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError

Tensor = Any
"""A tensor of the server's, or an array."""

Run = Callable[[str, Mapping[str, Tensor], str], Awaitable[Tensor]]
"""Run a network ("predictor", "sftmd", "corrector") on named inputs; gives the named output."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, and what it gets if it does not ask."""

    smallest_side: int
    """Pixels of the shorter side of an LR frame, at least."""
    largest_area: int
    """Height times width of an LR frame, at most."""
    default_iters: int
    """Corrections of a frame whose blur is not known at all."""
    tracked_iters: int
    """Corrections of a frame that starts from the code of the one before it."""
    largest_iters: int
    """Corrections, at most."""
    streams: int
    """Streams whose last code each instance remembers."""

    def __post_init__(self) -> None:
        for name, least in (("smallest_side", 1), ("largest_area", 1), ("streams", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("default_iters", "tracked_iters"):
            if not 0 <= getattr(self, name) <= self.largest_iters:
                raise InputError(
                    f"{name} must lie in 0..{self.largest_iters} (largest_iters), "
                    f"got {getattr(self, name)}"
                )

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Mapping[str, str]]) -> Limits:
        """The limits in the `parameters` of a model's configuration, as Triton hands it over.

        Raises `InputError` for one that is missing or no whole number.
        """
        try:
            values = {name: int(parameters[name]["string_value"]) for name in cls.__annotations__}
        except (KeyError, ValueError) as error:
            raise InputError(f"config.pbtxt lacks a whole number for {error}") from error
        return cls(**values)

    def check_frames(self, shape: Sequence[int]) -> None:
        """Raise `InputError` unless frames of this shape `[N,H,W,3]` may be upscaled."""
        if len(shape) != 4 or shape[0] < 1 or shape[3] != 3:
            raise InputError(f"lr must be [N,H,W,3] uint8, got shape {list(shape)}")
        height, width = shape[1:3]
        if min(height, width) < self.smallest_side:
            raise InputError(
                f"a frame needs at least {self.smallest_side} pixels on each side, "
                f"got {width}x{height}"
            )
        if height * width > self.largest_area:
            raise InputError(
                f"this server takes frames of at most {self.largest_area} pixels, "
                f"got {width}x{height}; send it in tiles"
            )

    def iters(self, asked: NDArray[Any] | None, tracked: bool) -> int:
        """How many corrections to make, of what a request asks for (None: nothing).

        Raises `InputError` unless it is one number, within the limits, for all its frames.
        """
        if asked is None:
            return self.tracked_iters if tracked else self.default_iters
        values = np.unique(asked)
        if len(values) != 1 or not 0 <= values[0] <= self.largest_iters:
            raise InputError(
                f"iters must be one whole number in 0..{self.largest_iters} for all frames of a "
                f"request, got {values.tolist()}"
            )
        return int(values[0])


class Streams:
    """The last code of each of the latest `capacity` streams."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._codes: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def recall(self, stream: int) -> NDArray[np.float32] | None:
        """The last code of a stream; None if it has none, or was forgotten for newer ones."""
        return self._codes.get(stream)

    def remember(self, stream: int, code: NDArray[np.float32]) -> None:
        """Keep the last code `[N,code_size]` of a stream."""
        self._codes[stream] = code
        self._codes.move_to_end(stream)
        while len(self._codes) > self._capacity:
            self._codes.popitem(last=False)

    def forget(self, stream: int) -> None:
        """Drop a stream; nothing happens if it is not known."""
        self._codes.pop(stream, None)


async def restore(
    run: Run, lr: Tensor, code: Tensor | None, iters: int
) -> tuple[Tensor, list[Tensor]]:
    """The frames after `iters` corrections, and the code of every step.

    `lr` is `[N,H,W,3]` uint8 frames. `code` `[N,code_size]` is where the loop starts; None lets the
    predictor say. Raises what `run` raises.
    """
    if code is None:
        code = await run("predictor", {"lr": lr}, "code")
    codes = [code]
    for _ in range(iters):
        sr = await run("sftmd", {"lr": lr, "code": code}, "sr")
        code = await run("corrector", {"sr": sr, "code": code}, "next_code")
        codes.append(code)
    return await run("sftmd", {"lr": lr, "code": code}, "frame"), codes
