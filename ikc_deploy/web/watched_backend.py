"""A backend that counts the passes of networks and stops between two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ikc_deploy.errors import IkcError
from ikc_deploy.runtime.backends.base import Backend, Binding, BoundGraph


class CancelledError(IkcError):
    """The user cancelled the work."""


class _WatchedGraph:
    """A bound graph that reports before it runs."""

    def __init__(self, graph: BoundGraph, before: Callable[[], None]) -> None:
        self._graph, self._before = graph, before

    def enqueue(self) -> None:
        self._before()
        self._graph.enqueue()


class WatchedBackend:
    """A CPU backend whose graphs call `on_pass` before they run; it may raise `CancelledError`.

    Args:
        backend: The backend that computes; this one owns it.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.on_pass: Callable[[], None] = lambda: None

    def bind(self, bindings: Sequence[Binding]) -> list[BoundGraph]:
        """Return the graphs of the backend, watched."""
        return [_WatchedGraph(graph, self._report) for graph in self._backend.bind(bindings)]

    def _report(self) -> None:
        self.on_pass()

    def __getattr__(self, name: str) -> Any:
        """Return everything else from the backend."""
        return getattr(self._backend, name)
