"""A training step as a CUDA graph: recorded once, replayed for every batch.

Small networks on a large GPU take longer to launch than to compute; a replay is one launch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from ikc_deploy.training.stage_context import StageInputs

_LOG = logging.getLogger(__name__)
_WARM_UP: Final = 3
"""Number of steps before the recording, in which libraries choose their algorithms."""

Gradients = Callable[[StageInputs], Tensor]
"""Function that writes the gradients of a step, instead of any before, and returns the loss."""


class RecordedGradients:
    """A replay of `compute`, whose gradients overwrite those of the step before.

    If the recording fails, a warning says why, and every step is computed operation by operation.

    Args:
        compute: Function to record. It must compute the same operations for all inputs of the same
            shapes, on the current CUDA stream, without waiting for results. Nothing else may set
            the gradients to None.
    """

    def __init__(self, compute: Gradients) -> None:
        self._compute = compute
        self._gradients: Gradients | None = None

    def __call__(self, inputs: StageInputs) -> Tensor:
        """Compute the gradients of a step; return its loss, a scalar in memory of its own."""
        if self._gradients is None:
            self._gradients = self._recorded(inputs)
        return self._gradients(inputs)

    def _recorded(self, inputs: StageInputs) -> Gradients:
        """Return the replay of a recorded step, or `compute` if it cannot be recorded."""
        kept = inputs.clone()
        try:
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    self._compute(kept)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = self._compute(kept)
        except RuntimeError as error:
            torch.cuda.synchronize()
            reason = str(error).splitlines()[0]
            _LOG.warning("steps cannot be recorded as a CUDA graph (%s); they run slower", reason)
            return self._compute

        def replay(inputs: StageInputs) -> Tensor:
            kept.copy_(inputs)
            graph.replay()
            return loss.clone()

        return replay
