"""A prediction of GPU latency from the work of the graphs and a card's published peak rates.

The roofline model: an operation takes as long as its arithmetic at the peak rate, or its memory
traffic at the full bandwidth, whichever is longer. Two bounds:

- `fused`: only convolutions and matrix products access memory; the operations between them are
  fused into them. No engine is faster than that at these rates.
- `unfused`: every operation reads its inputs and writes its output.

Real latency is above `fused`; by how much must be measured. Launches and copies to and from the
host are not included: a CUDA graph launches the loop once.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from ikc_deploy.benchmarks.case import BenchmarkCase
from ikc_deploy.benchmarks.flops import Work, bundle_work, loop_total
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import InputError


@dataclass(frozen=True)
class Card:
    """A GPU and its peak rates as published by its maker.

    Raises:
        InputError: A rate is not positive.
    """

    name: str
    """Name of the GPU."""
    tflops: float
    """Rate of dense float16 matrix products with float32 sums, in 10^12 FLOP a second."""
    gigabytes: float
    """Memory bandwidth in 10^9 bytes a second."""
    source: str
    """Source of the rates."""

    def __post_init__(self) -> None:
        """Require positive rates."""
        if not (self.tflops > 0 and self.gigabytes > 0):
            raise InputError(
                f"the rates of '{self.name}' must be positive, got tflops {self.tflops:g} and "
                f"gigabytes {self.gigabytes:g}"
            )


@dataclass(frozen=True)
class RooflineLatency:
    """The predicted milliseconds of one call of the loop."""

    fused: float
    """Lower bound: only convolutions and matrix products access memory."""
    unfused: float
    """Time if every operation reads its inputs and writes its output."""


def read_cards(path: Path) -> list[Card]:
    """Read the cards of a TOML file with a table for each.

    Raises:
        InputError: The file cannot be read, or a card is invalid.
    """
    try:
        tables = tomllib.loads(path.read_text())
        return [Card(name, **table) for name, table in tables.items()]
    except (tomllib.TOMLDecodeError, TypeError, OSError) as error:
        raise InputError(f"'{path}' does not hold cards: {error}") from error


def predict(bundle: Bundle, case: BenchmarkCase, card: Card) -> RooflineLatency:
    """Predict the latency of a call of `case` on `card` at its peak rates, in float16.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    size = 2
    fused: dict[str, float] = {}
    unfused: dict[str, float] = {}
    for name, nodes in bundle_work(bundle, case).items():
        fused[name] = sum(_ms(work, card, size) for _, work in nodes if work.macs)
        unfused[name] = sum(_ms(work, card, size) for _, work in nodes)
    loop = bundle.loop
    return RooflineLatency(
        loop_total(loop, fused, case.iters), loop_total(loop, unfused, case.iters)
    )


def _ms(work: Work, card: Card, size: int) -> float:
    arithmetic = 2 * work.macs / (card.tflops * 1e12)
    traffic = work.bytes(size) / (card.gigabytes * 1e9)
    return 1e3 * max(arithmetic, traffic)
