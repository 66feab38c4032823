"""A bounded queue between two threads that either side can close.

The standard library has this from Python 3.13 on (`Queue.shutdown`); we support 3.11.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

_Item = TypeVar("_Item")

_LOOK_SECONDS: Final = 0.1
"""Interval in seconds at which a waiting consumer checks the stop event."""


class BoundedQueue(Generic[_Item]):
    """A queue of at most `capacity` items from one thread to another.

    `put` blocks while the queue is full. With `newest_wins`, it drops the oldest item instead and
    counts it in `dropped`.

    Args:
        capacity: Maximum number of items.
        newest_wins: Whether `put` drops the oldest item instead of blocking.
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
        """Add an item; return False if the queue was cancelled."""
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
        """Signal that no items will be added; items in the queue are still delivered."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Signal that no items will be read; items in the queue are dropped."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def items(self, stop: threading.Event | None = None) -> Iterator[_Item]:
        """Yield items as they arrive, until the queue is finished or cancelled or `stop` is set."""
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
