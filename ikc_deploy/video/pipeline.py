"""A pipeline of three concurrent stages (read, work, write) with bounded queues between them.

Reading and writing have a thread each; the work is done in the caller's thread, which receives
signals. In all cases (end of the frames, stop, error in any stage), both threads have ended when
`run` returns or raises, and all items that were processed before a stop are written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final, TypeVar

from ikc_deploy.runtime.bounded_queue import BoundedQueue

CAPACITY: Final = 3
"""Maximum number of waiting frames between two stages; small, because 4K frames are large."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def run(
    items: Generator[_In, None, None],
    work: Callable[[_In], _Out],
    write: Callable[[_Out], None],
    stop: threading.Event,
    newest_wins: bool = False,
) -> int:
    """Pass every item through `work` and then `write`, in order, until `stop` is set.

    Setting `stop` ends the run after the current item, which is still written. An error of any
    stage ends all three and is raised; items that had left that stage are written.

    Args:
        items: The items; the generator is closed at the end.
        work: Called in the caller's thread.
        write: Called in a thread of its own.
        stop: Event that ends the run.
        newest_wins: Whether an item that arrives while `work` is busy replaces the waiting one.

    Returns:
        The number of items that were replaced.
    """
    todo = BoundedQueue[_In](1 if newest_wins else CAPACITY, newest_wins)
    done = BoundedQueue[_Out](CAPACITY)

    def read() -> None:
        try:
            with closing(items):
                for item in items:
                    if not todo.put(item):
                        break
        finally:
            todo.finish()

    def drain() -> None:
        try:
            for result in done.items():
                write(result)
        finally:
            done.cancel()

    with ThreadPoolExecutor(2, "ikc-video") as threads:
        reader, writer = threads.submit(read), threads.submit(drain)
        try:
            for item in todo.items(stop):
                if not done.put(work(item)):
                    break
        finally:
            todo.cancel()
            done.finish()
    writer.result()
    reader.result()
    return todo.dropped
