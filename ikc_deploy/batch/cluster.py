"""Tasks on actors, by Ray Data: every actor holds one upscaler and takes a task at a time.

Ray starts an actor anew when its process dies, and gives its task to another, for ever. So actors
count how often a task was begun, in files that they share, and give up one that takes its actor
with it time and again: it must not stop the rest.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ikc_deploy.batch.settings import ClusterSettings, UpscalerSettings
from ikc_deploy.batch.tasks import Task, TaskOutcome, do
from ikc_deploy.errors import BackendError, IkcError, InputError, MissingExtraError

DEATHS: Final = 3
"""Actors that may die of a task before it is given up."""

_CORES: Final = 4
"""Cores of an actor if nobody says: more of them are slower than more actors."""


@dataclass(frozen=True)
class Share:
    """How a cluster is divided among actors."""

    actors: int
    cores: int
    gpus: int


def divide(cpus: float, gpus: float, tasks: int, actors: int | None, cores: int) -> Share:
    """One GPU for each actor where there are any, else `cores` each; none is left without work.

    `cpus` and `gpus` are the cluster's. None and 0 mean as many actors as there is room for, and up
    to four cores. Raises `InputError` if there is less than was asked for.
    """
    each = cores or max(1, min(_CORES, int(cpus) // (actors or 1)))
    room = int(gpus) if gpus >= 1 else int(cpus) // each
    wanted = actors or min(max(room, 1), tasks)
    if room < wanted:
        what = f"{gpus:g} GPUs" if gpus >= 1 else f"{cpus:g} cores"
        raise InputError(
            f"{wanted} actors of {each} cores do not fit into a cluster of {what}; "
            "ask for fewer with --actors, or smaller ones with --threads"
        )
    return Share(min(wanted, tasks), each, 1 if gpus >= 1 else 0)


def require_ray() -> None:
    """Raise `MissingExtraError` if Ray is not installed; it is not imported, which takes long."""
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "--ray")


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """Ray, for the block: a cluster's, or one that is started here and stopped at the end.

    Raises `MissingExtraError` without Ray, `BackendError` if the cluster does not answer.
    """
    # Usage statistics would be sent to Ray's makers; its C++ part warns of what is meant to be.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    require_ray()
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "ray", "ray", "--ray") from error
    # A Ray of our own is nobody else's to reach.
    alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    local = {} if settings.address else alone
    # Without an address, Ray would look for a cluster that runs here, or did once.
    address = settings.address or "local"
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(f"Ray does not start ({_last_line(error)})") from error
    try:
        yield
    finally:
        ray.shutdown()


def run_tasks(
    tasks: Sequence[Task], upscaler: UpscalerSettings, settings: ClusterSettings, scratch: Path
) -> Iterator[tuple[int, TaskOutcome]]:
    """Every task's number and outcome, as they are done; within `connected`.

    `scratch` is an empty folder that all machines see. A task that was given up has an error.
    Raises `BackendError` if no actor can be started.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    resources = ray.cluster_resources()
    room = resources.get("CPU", 0), resources.get("GPU", 0)
    share = divide(*room, len(tasks), settings.actors, upscaler.threads)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Actor,
        fn_constructor_args=[replace(upscaler, threads=share.cores), scratch],
        # A task that waits at a busy actor could be done by a free one.
        compute=ActorPoolStrategy(size=share.actors, max_tasks_in_flight_per_actor=1),
        num_cpus=share.cores,
        num_gpus=share.gpus or None,
    )
    try:
        for row in done.iter_rows():
            if row["broken"]:
                raise BackendError(row["broken"])
            yield row["number"], pickle.loads(row["outcome"])
    except RayError as error:
        raise BackendError(f"Ray gave up: {_last_line(error)}") from error


class _Actor:
    """Lives in a process of its own, on any machine of the cluster."""

    def __init__(self, settings: UpscalerSettings, scratch: Path) -> None:
        self._sigma = settings.sigma
        self._scratch = scratch
        self._broken = ""
        try:
            self._upscaler = settings.open()
        except IkcError as error:
            # Raised here, it would be taken for a fault of the machine, and tried again.
            self._broken = f"an actor on {platform.node()} cannot start: {error}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        outcome = (
            TaskOutcome() if self._broken else self._try(row["number"], pickle.loads(row["task"]))
        )
        answer = {"number": row["number"], "broken": self._broken}
        return answer | {"outcome": pickle.dumps(outcome)}

    def _try(self, number: int, task: Task) -> TaskOutcome:
        begun = self._scratch / str(number)
        with open(begun, "a+") as file:
            file.write(f"{os.getpid()}\n")
            file.seek(0)
            if len(file.readlines()) > DEATHS:
                return TaskOutcome(error=f"the process that worked on it died {DEATHS} times")
        outcome = do(task, self._upscaler, self._sigma)
        begun.unlink()
        return outcome


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
