"""Training of one run by several processes, started by torchrun.

Every process draws the same batch and computes its part; `DistributedDataParallel` averages the
gradients, so a run computes the same with one process or several, up to rounding. Only the main
process writes files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import torch
import torch.distributed as dist

from ikc_deploy.errors import RecipeError

_T = TypeVar("_T")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from this one; by default it is alone."""

    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """Number of processes."""

    @property
    def is_main(self) -> bool:
        """Whether this process is the main process, which writes the files."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Return the part of `count` samples that this process computes.

        Raises:
            RecipeError: `count` is not a multiple of the number of processes.
        """
        if count % self.size:
            raise RecipeError(
                f"a batch of {count} cannot be split evenly among {self.size} processes; "
                "choose another number of processes or another 'batch'"
            )
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def broadcast(self, value: _T) -> _T:
        """Return the value of the main process, in every process; it must be picklable."""
        if self.size == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]

    def barrier(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            dist.barrier()


SINGLE_PROCESS: Final = ProcessGroup()
"""Group of one process, as without torchrun."""


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, and leave them at the end.

    Args:
        device: Device of this process; "cuda" communicates by NCCL, others by Gloo.

    Yields:
        The group, or `SINGLE_PROCESS` without torchrun.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE_PROCESS
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> torch.device:
    """Return the device called `name`; plain "cuda" under torchrun is this process's own GPU."""
    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
