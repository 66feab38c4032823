"""Read, work, write: three stages at once, with bounded queues between them.

Reading and writing have a thread each; the work is done in the caller's, where signals arrive.
However it ends (the frames run out, a stop, an error in any stage), both threads have ended when
`run` returns or raises, and nothing that was worked on before a stop is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final, TypeVar

from ikc_deploy.runtime.bounded_queue import BoundedQueue

CAPACITY: Final = 3
"""Frames that wait between two stages: enough to even out, few enough for 4K ones."""

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

    With `newest_wins`, items that arrive while the work is busy replace each other; returns how
    many were dropped so. Setting `stop` ends it after the item in hand, which is still written.
    An error of any stage ends all three and is raised; items that had left that stage are written.
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
