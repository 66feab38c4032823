"""Several processes training one run, started by torchrun: who they are and what they share.

Every process draws the same batch and computes its part; gradients are averaged by
`DistributedDataParallel`, so a run computes the same with one process or several, up to rounding.
The first process alone writes files.
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
    """This process among all of a run; alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This process's among `count` samples. Raises `RecipeError` if they do not split."""
        if count % self.size:
            raise RecipeError(
                f"a batch of {count} cannot be split evenly among {self.size} processes; "
                "choose another number of processes or another 'batch'"
            )
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def broadcast(self, value: _T) -> _T:
        """The first process's value, in all."""
        if self.size == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]

    def barrier(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            dist.barrier()


SINGLE_PROCESS: Final = ProcessGroup()
"""One process, as without torchrun."""


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, or be alone; leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE_PROCESS
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> torch.device:
    """The device called `name`; plain "cuda" under torchrun is this process's own GPU."""
    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
