"""The log of a run: a file of JSON lines, and TensorBoard."""

from __future__ import annotations

import functools
import json
import math
import threading
from pathlib import Path
from typing import Final

from ikc_deploy.errors import MissingExtraError, TrainingError
from ikc_deploy.files import write_atomically

LOG_FILE: Final = "log.jsonl"

_BOARD_FOLDER: Final = "tensorboard"
_BOARD_FILE: Final = "events.out.tfevents"


class RunLog:
    """A log of a run in log.jsonl and TensorBoard.

    Args:
        run: Folder of the run, which must exist.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "training", "a training's log") from error

        self.path = run / LOG_FILE
        _leave_failures_of_the_board_to_flush()
        self._board = SummaryWriter(str(run / _BOARD_FOLDER))

    def write(self, stage: str, step: int, figures: dict[str, float]) -> None:
        """Append one line, and the same figures to TensorBoard.

        Raises:
            TrainingError: The loss in `figures` is not finite, so further steps are useless; or the
                log cannot be written.
        """
        if not math.isfinite(figures.get("loss", 0.0)):
            raise diverged(self.path.parent, stage, step, "the loss")
        line = {"stage": stage, "step": step} | {k: round(v, 6) for k, v in figures.items()}
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            for key, value in figures.items():
                self._board.add_scalar(f"{stage}/{key}", value, step)
            self._board.flush()
        except OSError as error:
            raise TrainingError(
                f"the log in '{self.path.parent}' cannot be written ({error.strerror or error}); "
                "make room and continue with --resume"
            ) from error

    def forget_after(self, stage: str, step: int, stages: list[str]) -> None:
        """Remove the lines of steps that were not saved, which a resumed run repeats."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            entry = json.loads(line)
            earlier = entry["stage"] in stages[: stages.index(stage)]
            if earlier or (entry["stage"] == stage and entry["step"] <= step):
                kept.append(line + "\n")
        write_atomically(self.path, "".join(kept).encode())

    def last(self, stage: str) -> dict[str, float]:
        """Return the last value of every figure of a stage."""
        merged: dict[str, float] = {}
        for line in self.path.read_text().splitlines():
            entry = json.loads(line)
            if entry["stage"] == stage:
                merged |= {k: v for k, v in entry.items() if k != "stage"}
        return merged


def log_files(run: Path) -> list[str]:
    """Return the names of all files in a run's folder that a log may consist of."""
    boards = [board.name for board in (run / _BOARD_FOLDER).glob(f"{_BOARD_FILE}*")]
    return [LOG_FILE, *(f"{_BOARD_FOLDER}/{name}" for name in (_BOARD_FILE, *boards))]


def diverged(run: Path, stage: str, step: int, what: str) -> TrainingError:
    """Return the error for `what` in the folder `run`, which is not finite after a step."""
    return TrainingError(
        f"{what} is not finite after step {step} of '{stage}', so the training has diverged; lower "
        f"'learning_rate' in the recipe and start a new run ('{run}' keeps its last state)"
    )


@functools.cache
def _leave_failures_of_the_board_to_flush() -> None:
    """Keep threads of TensorBoard from printing a traceback: `flush` raises their errors again."""
    before = threading.excepthook

    def report(failure: threading.ExceptHookArgs) -> None:
        of_the_board = type(failure.thread).__module__.startswith("tensorboard.")
        if not (of_the_board and issubclass(failure.exc_type, OSError)):
            before(failure)

    threading.excepthook = report
