"""Execution of tasks by Ray Data: every actor holds one upscaler and runs one task at a time.

Ray restarts an actor whose process dies, and gives its task to another actor, without limit. Actors
therefore count the starts of each task in shared files, and give up a task whose actors keep dying,
so that it does not block the other tasks.
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

from ikc_deploy.batch.settings import ActorSettings, ClusterSettings
from ikc_deploy.batch.tasks import Task, TaskOutcome, run_task
from ikc_deploy.errors import BackendError, IkcError, InputError, MissingExtraError, needs_extra

DEATHS: Final = 3
"""Number of actors that may die while running a task before the task is given up."""

_CORES: Final = 4
"""Default cores per actor: more actors are faster than more cores per actor."""


@dataclass(frozen=True)
class Share:
    """The division of a cluster among actors."""

    actors: int
    """Number of actors."""
    cores: int
    """CPU cores per actor."""
    gpus: int
    """GPUs per actor, 0 or 1."""


def divide(cpus: float, gpus: float, tasks: int, actors: int | None, cores: int) -> Share:
    """Divide a cluster among actors: one GPU each if there are any, otherwise CPU cores.

    Args:
        cpus: CPU cores of the cluster.
        gpus: GPUs of the cluster.
        tasks: Number of tasks, 1 or more; there are never more actors.
        actors: Requested number of actors; None for as many as fit.
        cores: Requested cores per actor; 0 for up to four.

    Raises:
        InputError: The requested actors do not fit into the cluster.
    """
    each = cores or max(1, min(_CORES, int(cpus) // (actors or 1)))
    room = int(gpus) if gpus >= 1 else int(cpus) // each
    wanted = actors or min(max(room, 1), tasks)
    if room < wanted:
        what = f"{gpus:g} GPUs" if gpus >= 1 else f"{cpus:g} cores"
        raise InputError(
            f"{wanted} actors of {each} cores do not fit into a cluster of {what}; "
            "request fewer actors with --actors, or fewer cores for each with --threads"
        )
    return Share(min(wanted, tasks), each, 1 if gpus >= 1 else 0)


def require_ray() -> None:
    """Raise `MissingExtraError` if Ray is not installed, without the slow import of Ray."""
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "--ray")


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """Connect to a Ray cluster for the block, or start Ray here and stop it at the end.

    Args:
        settings: Address of the cluster; None to start Ray on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        BackendError: The cluster does not answer, or Ray does not start.
    """
    # Disable Ray's usage statistics, and the warnings of its C++ part about intended settings.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    require_ray()
    with needs_extra("ray", "--ray"):
        import ray
        import ray.data
        from ray.exceptions import RayError
    # A Ray that is started here must not be reachable from other machines.
    alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    local = {} if settings.address else alone
    # Without an address, Ray would search for a running or earlier cluster on this machine.
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
    tasks: Sequence[Task], upscaler: ActorSettings, settings: ClusterSettings, scratch: Path
) -> Iterator[tuple[int, TaskOutcome]]:
    """Run tasks on the actors of a cluster, inside a `connected` block.

    Args:
        tasks: The tasks, at least one.
        upscaler: Settings with which every actor opens its upscaler.
        settings: Requested number of actors.
        scratch: An empty folder that all machines can access.

    Yields:
        Number and outcome of each task as it ends. The outcome of a task that was given up has an
        error.

    Raises:
        InputError: The requested actors do not fit into the cluster.
        BackendError: An actor cannot start, or Ray fails.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    resources = ray.cluster_resources()
    room = resources.get("CPU", 0), resources.get("GPU", 0)
    share = divide(*room, len(tasks), settings.actors, upscaler.options.threads)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    rows = [{"number": number, "task": pickle.dumps(task)} for number, task in enumerate(tasks)]
    options = replace(upscaler.options, threads=share.cores)
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Actor,
        fn_constructor_args=[replace(upscaler, options=options), scratch],
        # A task must not wait for a busy actor while another is idle.
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
        raise BackendError(f"Ray failed: {_last_line(error)}") from error


class _Actor:
    """An actor in a separate process, on any machine of the cluster."""

    def __init__(self, settings: ActorSettings, scratch: Path) -> None:
        self._sigma = settings.sigma
        self._scratch = scratch
        self._broken = ""
        try:
            self._upscaler = settings.open()
        except IkcError as error:
            # Ray would treat an exception here as a machine failure, and retry.
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
                return TaskOutcome(error=f"the process that ran this task died {DEATHS} times")
        outcome = run_task(task, self._upscaler, self._sigma)
        begun.unlink()
        return outcome


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
