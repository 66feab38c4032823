from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.offline import optimize as fitting
from ikc_deploy.offline.optimize import Losses, optimize


class Walk:
    """A random walk: every step depends on all before it, and on the generator."""

    iterations = 20

    def __init__(self, seed: int = 0, bad_at: int | None = None) -> None:
        self.fingerprint = {"seed": seed}
        self._generator = torch.Generator().manual_seed(seed)
        self._place = torch.zeros(3)
        self._taken = 0
        self._bad_at = bad_at

    def step(self) -> Losses:
        self._place = 0.9 * self._place + torch.randn(3, generator=self._generator)
        self._taken += 1
        return {"loss": float("nan") if self._taken == self._bad_at else float(self._place[0])}

    def image(self) -> NDArray[np.uint8]:
        return np.full((2, 2, 3), self._taken, np.uint8)

    def kernel(self) -> NDArray[np.float64] | None:
        return None

    def state(self) -> dict[str, Any]:
        generator = self._generator.get_state()
        return {"place": self._place, "taken": self._taken, "generator": generator}

    def restore(self, state: dict[str, Any]) -> None:
        self._place, self._taken = state["place"], state["taken"]
        self._generator.set_state(state["generator"])


@pytest.mark.parametrize("broken_after", [1, 7, 19])
def test_a_fit_that_was_stopped_goes_on_to_the_same_end(tmp_path: Path, broken_after: int) -> None:
    unbroken = optimize(Walk())
    stop, file = threading.Event(), tmp_path / "fit.pt"

    def watch(done: int, total: int, losses: Losses) -> None:
        assert total == 20
        if done == broken_after:
            stop.set()

    stopped = optimize(Walk(), watch, stop=stop, state=file)
    assert not stopped.complete
    assert len(stopped.history) == broken_after
    assert stopped.image[0, 0, 0] == broken_after
    finished = optimize(Walk(), state=file)
    assert finished.complete
    assert finished.history == unbroken.history
    assert np.array_equal(finished.image, unbroken.image)


def test_a_killed_fit_goes_on_from_its_last_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_WRITES", 0.0)
    file = tmp_path / "fit.pt"

    def die(done: int, total: int, losses: Losses) -> None:
        if done == 9:
            raise SystemError("killed")

    with pytest.raises(SystemError):
        optimize(Walk(), die, state=file)
    assert optimize(Walk(), state=file).history == optimize(Walk()).history


def test_a_file_of_another_fit_or_a_damaged_one_is_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    file = tmp_path / "fit.pt"
    optimize(Walk(seed=1), state=file)
    before = file.read_bytes()
    with pytest.raises(InputError, match="another image or with other settings"):
        optimize(Walk(seed=2), state=file)
    assert file.read_bytes() == before
    file.write_bytes(before[:100])
    with pytest.raises(InputError, match="damaged"):
        optimize(Walk(seed=1), state=file)


def test_a_fit_that_diverges_says_when() -> None:
    with pytest.raises(InputError, match="iteration 4"):
        optimize(Walk(bad_at=4))
