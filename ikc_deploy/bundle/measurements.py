"""What exports and comparisons measured, as a manifest keeps it.

Root mean squares (RMS) are of differences: of images in units of their peak, 1, and of kernel codes
over all components.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deviation:
    """How far a graph is from its network, and how far rounding alone would take it."""

    found: float
    """RMS of the graph's output minus the network's."""
    rounding: float
    """RMS that the same rounding costs in an independent computation; what `found` is held
    against."""
    factor: float
    """How many times `rounding` is allowed."""

    @property
    def passed(self) -> bool:
        """Whether it is allowed; nothing that is not finite is."""
        return self.found <= self.factor * self.rounding


@dataclass(frozen=True)
class GraphParity:
    """One graph against its network, both on the same inputs."""

    weights: Deviation
    """With everything but the weights in float32: what the graph computes."""
    whole: Deviation
    """As it is, with rounded activations: what an engine computes."""


@dataclass(frozen=True)
class StepParity:
    """How far the loop of the graphs is from torch's after one step."""

    step: int
    image_db: float
    """PSNR of the two `sr` over all channels, peak 1, before rounding to 8 bits; at most 150 dB."""
    rounding_db: float
    """The same of a loop in torch that only rounds as the graphs do."""
    frame_levels: float
    """Largest distance of the 8-bit `frame` from the unrounded image of the same graph, in levels;
    0 where the graph gives no frames."""
    code_error: float
    """Largest absolute difference of any code component."""


@dataclass(frozen=True)
class Int8Parity:
    """PSNR-Y with one correction against the HR images that did not calibrate."""

    fp32_db: float
    int8_db: float
    loss_db: float
    """What 8 bits cost."""
    images: int
    kept: tuple[str, ...]
    """Weights of the SR network's convolutions that stay in float32."""


@dataclass(frozen=True)
class Parity:
    """The three graphs against torch."""

    graphs: dict[str, GraphParity]
    """By the name of the graph."""
    steps: tuple[StepParity, ...]
    int8: Int8Parity | None = None
    """None for other precisions."""


@dataclass(frozen=True)
class UsrnetParity:
    """The fourth graph against torch."""

    image_db: float
    rounding_db: float
    """The same of torch that only rounds as the graph does."""
    frame_levels: float
    """Largest distance of a frame from torch's unrounded image; 0 where the graph gives none."""


@dataclass(frozen=True)
class Output:
    """One output of one graph of an engine on one input, against ONNX Runtime on the same."""

    index: int
    """Of the input."""
    name: str
    max_error: float | None
    """None if it is not finite."""
    mean_error: float | None
    limit: float
    """Of the mean error."""
    passed: bool
    """Polygraphy's verdict."""


@dataclass(frozen=True)
class EngineStep:
    """The loops of an engine and of ONNX Runtime after a step, each on its own codes."""

    step: int
    image_db: float | None
    """PSNR of the two `sr`, peak 1, at most 150 dB; None if one is not finite."""
    code_error: float | None


@dataclass(frozen=True)
class Verification:
    """What comparing an engine with ONNX Runtime gave."""

    tools: dict[str, str]
    frame: tuple[int, int]
    """Height and width of the LR frame."""
    graphs: dict[str, list[Output]]
    steps: list[EngineStep]
    passed: bool
