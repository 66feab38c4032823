"""Ctrl-C as a request to finish."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def interruptible(stop: threading.Event) -> Generator[threading.Event, None, None]:
    """Make the first Ctrl-C in the block set `stop` and the yielded event.

    A second Ctrl-C has its usual effect.
    """
    interrupted = threading.Event()

    def finish(*_: object) -> None:
        interrupted.set()
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, finish)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
