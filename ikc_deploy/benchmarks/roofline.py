"""A prediction of GPU latency from the work of the graphs and a card's published peak rates.

The roofline model: an operation takes as long as its arithmetic at the peak rate, or its memory
traffic at the full bandwidth, whichever is longer. Two bounds:

- `fused`: only convolutions and matrix products touch memory; all that is between them is done on
  the way. No engine is faster than that at these rates.
- `unfused`: every operation reads its inputs and writes its output.

What really runs lies above `fused`, by how much is a matter of measurement. Launches and copies
to and from the host are left out: a CUDA graph launches the loop once.
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
    """Peak rates as its maker publishes them."""

    name: str
    tflops: float
    """Dense float16 matrix products with float32 sums, in 10^12 FLOP a second."""
    gigabytes: float
    """Memory bandwidth in 10^9 bytes a second."""
    source: str

    def __post_init__(self) -> None:
        if not (self.tflops > 0 and self.gigabytes > 0):
            raise InputError(f"the rates of '{self.name}' must be positive")


@dataclass(frozen=True)
class RooflineLatency:
    """Milliseconds of one call of the loop."""

    fused: float
    unfused: float


def read_cards(path: Path) -> list[Card]:
    """The cards of a TOML file with a table for each. Raises `InputError` for a bad one."""
    try:
        tables = tomllib.loads(path.read_text())
        return [Card(name, **table) for name, table in tables.items()]
    except (tomllib.TOMLDecodeError, TypeError, OSError) as error:
        raise InputError(f"'{path}' does not hold cards: {error}") from error


def predict(bundle: Bundle, case: BenchmarkCase, card: Card) -> RooflineLatency:
    """What a call of `case` takes on `card` at its peak rates, computing in float16.

    Raises `MissingExtraError` without onnx.
    """
    size = 2
    fused: dict[str, float] = {}
    unfused: dict[str, float] = {}
    for name, nodes in bundle_work(bundle, case).items():
        fused[name] = sum(_ms(work, card, size) for _, work in nodes if work.macs)
        unfused[name] = sum(_ms(work, card, size) for _, work in nodes)
    return RooflineLatency(loop_total(fused, case.iters), loop_total(unfused, case.iters))


def _ms(work: Work, card: Card, size: int) -> float:
    arithmetic = 2 * work.macs / (card.tflops * 1e12)
    traffic = work.bytes(size) / (card.gigabytes * 1e9)
    return 1e3 * max(arithmetic, traffic)
