"""The common loop of the offline methods: a fit that can be stopped, saved and resumed.

A method creates a `Fit`, which has its own networks, optimizers and random generator, initialised
from a seed. `optimize` runs its iterations. Between iterations a fit can be stopped, saved to a
file and restored; the result is the same as without an interruption.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.files import write_atomically

SECONDS_BETWEEN_WRITES: Final = 30.0

Losses = dict[str, float]
"""Losses of one iteration by name; `loss` is among them."""

Progress = Callable[[int, int, Losses], None]
"""Callback after every iteration: iterations done, all iterations, and the iteration's losses."""


class Fit(Protocol):
    """A fit of one method to one LR image."""

    iterations: int
    """Number of iterations of a complete fit."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Identity of the fit as JSON values; only a file with the same identity is resumed."""
        ...

    def step(self) -> Losses:
        """Do one iteration and return its losses."""
        ...

    def image(self) -> NDArray[np.uint8]:
        """Return the current SR image, RGB `[sH, sW, 3]`."""
        ...

    def kernel(self) -> NDArray[np.float64] | None:
        """Return the current kernel `[k, k]`, sum 1, in the FKP convention; None without one."""
        ...

    def state(self) -> dict[str, Any]:
        """Return everything that later steps depend on, the random generator included.

        It consists of tensors, numbers, strings, lists and dictionaries.
        """
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state`."""
        ...


@dataclass(frozen=True)
class FitResult:
    """The result of a fit."""

    image: NDArray[np.uint8]
    """SR image, RGB `[sH, sW, 3]`."""
    kernel: NDArray[np.float64] | None
    """Blur kernel `[k, k]`, sum 1, in the FKP convention; None from a method without kernels."""
    history: list[Losses]
    """Losses of every iteration."""
    complete: bool
    """Whether all iterations were done; False if the fit was stopped."""


@dataclass
class _StateFile:
    path: Path | None
    history: list[Losses] = field(default_factory=list)
    written: float = field(default_factory=time.monotonic)

    def resume(self, fit: Fit) -> None:
        """Resume the fit in the file, if there is one.

        Args:
            fit: A new fit, which takes the state of the file.

        Raises:
            InputError: The file is damaged, or holds another fit or more iterations.
        """
        if self.path is None or not self.path.exists():
            return
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            fingerprint, history, state = (content[key] for key in ("fit", "history", "state"))
        except Exception as error:  # torch and its unpickler raise a dozen types
            raise InputError(f"'{self.path}' is damaged; delete it to begin again") from error
        if fingerprint != fit.fingerprint:
            raise InputError(
                f"'{self.path}' holds a fit of another image or with other settings; "
                "use the same ones, give another folder, or delete it to begin again"
            )
        if len(history) > fit.iterations:
            raise InputError(
                f"'{self.path}' holds {len(history)} iterations, more than the requested "
                f"{fit.iterations}; request at least as many, or give another folder"
            )
        try:
            fit.restore(state)
        except Exception as error:  # torch raises half a dozen types for unsuitable states
            raise InputError(
                f"'{self.path}' is damaged or of another version; delete it to begin again"
            ) from error
        self.history = history

    def write(self, fit: Fit) -> None:
        if self.path is None:
            return
        buffer = io.BytesIO()
        content = {"fit": fit.fingerprint, "history": self.history, "state": fit.state()}
        torch.save(content, buffer)
        write_atomically(self.path, buffer.getvalue())
        self.written = time.monotonic()


def optimize(
    fit: Fit,
    progress: Progress = lambda *_: None,
    *,
    stop: threading.Event | None = None,
    state: Path | None = None,
) -> FitResult:
    """Run all iterations of `fit`, or until `stop` is set.

    Args:
        fit: Fit to run.
        progress: Called after every iteration.
        stop: Event that ends the fit after the current iteration.
        state: File in which the fit is saved periodically and at its end. If the file exists, the
            fit in it is resumed; the result is that of an uninterrupted run.

    Raises:
        InputError: The file is damaged, of another fit, or has more iterations than this one
            (before the first iteration), or a loss is no longer finite.
    """
    state_file = _StateFile(state)
    state_file.resume(fit)
    history = state_file.history
    while len(history) < fit.iterations and not (stop is not None and stop.is_set()):
        losses = fit.step()
        if not all(np.isfinite(value) for value in losses.values()):
            raise InputError(
                f"optimization diverged at iteration {len(history) + 1} ({losses}); "
                "try another --seed"
            )
        history.append(losses)
        progress(len(history), fit.iterations, losses)
        if time.monotonic() - state_file.written > SECONDS_BETWEEN_WRITES:
            state_file.write(fit)
    state_file.write(fit)
    return FitResult(fit.image(), fit.kernel(), history, len(history) >= fit.iterations)
