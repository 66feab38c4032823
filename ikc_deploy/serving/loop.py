"""The loop over networks that a server runs, and the limits of requests.

`ikc_deploy.loops` declares it. The module is copied into the model repository, so it imports only
numpy, `ikc_deploy.errors` and the declarations. It does not read the pixels of frames, which may be
in GPU memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.loops import CODE, FRAME, LR, NEXT_CODE, SR, Loop, LoopGraph

Tensor = Any
"""A tensor of the server, or an array."""

Run = Callable[[str, Mapping[str, Tensor], str], Awaitable[Tensor]]
"""A function that runs a network, given by its name, on named inputs and returns the named
output."""


@dataclass(frozen=True)
class Limits:
    """The limits of requests, and the default numbers of corrections.

    Raises:
        InputError: A value is out of its range.
    """

    smallest_side: int
    """Minimum shorter side of an LR frame in pixels, 1 or more."""
    largest_area: int
    """Maximum area of an LR frame in pixels, 1 or more."""
    default_iters: int
    """Number of corrections of a frame that starts from the loop's first code."""
    tracked_iters: int
    """Number of corrections of a frame that starts from the code of the frame before."""
    largest_iters: int
    """Maximum number of corrections."""
    streams: int
    """Number of streams whose last code each instance keeps, 1 or more."""

    def __post_init__(self) -> None:
        """Require positive limits, and default numbers of corrections within them."""
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
        """Read the limits from the `parameters` of a model configuration, in Triton's JSON form.

        Raises:
            InputError: A limit is missing, not a whole number, or out of its range.
        """
        try:
            values = {name: int(parameters[name]["string_value"]) for name in cls.__annotations__}
        except (KeyError, ValueError) as error:
            raise InputError(
                f"invalid config.pbtxt: expected a whole number for {error}"
            ) from error
        return cls(**values)

    def check_frames(self, shape: Sequence[int]) -> None:
        """Raise `InputError` unless `shape` is `[N,H,W,3]` and within the limits."""
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
                f"this server accepts frames of at most {self.largest_area} pixels, "
                f"got {width}x{height}; send it in tiles"
            )

    def iters(self, asked: NDArray[Any] | None, tracked: bool) -> int:
        """Return the number of corrections of a request.

        Args:
            asked: The requested numbers, one for each frame; None for the default.
            tracked: Whether the frames start from the code of the frames before.

        Raises:
            InputError: The requested numbers differ or are out of range.
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
    """The last kernel codes of the most recent streams.

    Args:
        capacity: Maximum number of streams.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._codes: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def recall(self, stream: int) -> NDArray[np.float32] | None:
        """Return the last code of a stream; None if it has none or newer streams replaced it."""
        return self._codes.get(stream)

    def remember(self, stream: int, code: NDArray[np.float32]) -> None:
        """Store the last code `[N,code_size]`, float32, of a stream."""
        self._codes[stream] = code
        self._codes.move_to_end(stream)
        while len(self._codes) > self._capacity:
            self._codes.popitem(last=False)

    def forget(self, stream: int) -> None:
        """Remove a stream; do nothing if it is not known."""
        self._codes.pop(stream, None)


async def restore(
    loop: Loop, run: Run, lr: Tensor, code: Tensor | None, iters: int
) -> tuple[Tensor, list[Tensor]]:
    """Run a loop on frames.

    Args:
        loop: The loop of the networks.
        run: The function that runs a network.
        lr: LR frames `[N,H,W,3]`, uint8.
        code: Initial kernel code `[N,code_size]`, float32; None for that of the start network.
        iters: Number of corrections, 0 or more.

    Returns:
        The SR frames `[N,sH,sW,3]`, uint8, and the `iters + 1` codes of the steps.

    Raises:
        ValueError: `code` is None, but the loop has no start network.
        Exception: As raised by `run`.
    """
    if code is None:
        if loop.start is None:
            raise ValueError(f"the loop '{loop.name}' starts at a constant code; give it")
        code = await run(loop.start.name, {LR: lr}, CODE)

    async def compute(graph: LoopGraph, output: str) -> Tensor:
        return await run(graph.name, {name: values[name] for name in graph.inputs}, output)

    values, codes = {LR: lr, CODE: code}, [code]
    for _ in range(iters):
        values[SR] = await compute(loop.image, SR)
        values[CODE] = await compute(loop.update, NEXT_CODE)
        codes.append(values[CODE])
    return await compute(loop.image, FRAME), codes
