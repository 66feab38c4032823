"""A bounded queue between two threads that either side can end.

The standard library's queue can do so from Python 3.13 on (`Queue.shutdown`); we support 3.11.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

_Item = TypeVar("_Item")

_LOOK_SECONDS: Final = 0.1
"""How often a waiting taker looks whether it was told to stop."""


class BoundedQueue(Generic[_Item]):
    """At most `capacity` items on their way from one thread to another.

    A full channel makes `put` wait; with `newest_wins` it drops the oldest item instead, and
    counts it in `dropped`.
    """

    def __init__(self, capacity: int, newest_wins: bool = False) -> None:
        self.dropped = 0
        self._capacity = capacity
        self._newest_wins = newest_wins
        self._items: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._cancelled = False

    def put(self, item: _Item) -> bool:
        """Hand over an item; False if the other side takes no more."""
        with self._changed:
            if self._newest_wins and len(self._items) == self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: self._cancelled or len(self._items) < self._capacity)
            if self._cancelled:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self) -> None:
        """Say that no more items will come; those on their way arrive."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Say that no more items are wanted; those on their way are forgotten."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def items(self, stop: threading.Event | None = None) -> Iterator[_Item]:
        """Items as they come, until the channel is finished or cancelled, or `stop` is set."""
        while True:
            with self._changed:
                while not (self._items or self._finished or self._cancelled):
                    if stop is not None and stop.is_set():
                        return
                    self._changed.wait(None if stop is None else _LOOK_SECONDS)
                if not self._items or (stop is not None and stop.is_set()):
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
