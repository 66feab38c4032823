"""Results of the parity checks of exports and engines, as a manifest stores them.

Root mean squares (RMS) are those of differences: of images in [0,1], and of kernel codes over all
components.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deviation:
    """The difference between a graph and its network, and the part that rounding explains."""

    found: float
    """RMS of the graph's output minus the network's."""
    rounding: float
    """RMS error of the same rounding in an independent computation, the reference for `found`."""
    factor: float
    """Maximum allowed ratio of `found` to `rounding`."""

    @property
    def passed(self) -> bool:
        """Whether the difference is allowed; False if it is not finite."""
        return self.found <= self.factor * self.rounding


@dataclass(frozen=True)
class GraphParity:
    """The differences between one graph and its network on the same inputs."""

    weights: Deviation
    """Difference with everything but the weights in float32: checks the graph's operations."""
    whole: Deviation
    """Difference of the graph as it is, with rounded activations, as an engine runs it."""


@dataclass(frozen=True)
class StepParity:
    """The difference between the loop of the graphs and that of torch after one step."""

    step: int
    """Step of the loop; 0 is the predictor's."""
    image_db: float
    """PSNR of the two `sr` over all channels, peak 1, before rounding to 8 bits; at most 150 dB."""
    rounding_db: float
    """PSNR between torch's loop and one in torch that only rounds as the graphs do."""
    frame_levels: float
    """Largest distance of the 8-bit `frame` from the unrounded image of the same graph, in levels;
    0 where the graph returns no frames."""
    code_error: float
    """Largest absolute difference of any code component."""


@dataclass(frozen=True)
class Int8Loss:
    """The loss of PSNR-Y by INT8 over the images, each compared with itself in float32."""

    median_db: float
    """Median loss in dB; negative if INT8 gains."""
    worst_db: float
    """Largest loss in dB."""


@dataclass(frozen=True)
class Int8Parity:
    """PSNR-Y of INT8 and float32 graphs on HR images that were not used for calibration.

    The two ways distinguish what 8 bits cost the SR network and what they cost the estimate.
    """

    fp32_db: float
    """Mean PSNR-Y of the float32 graphs in dB, blind, with one correction."""
    int8_db: float
    """Mean PSNR-Y of the INT8 graphs in dB, blind, with one correction."""
    blind: Int8Loss
    """Loss with each bundle's own estimate of the blur."""
    true_kernel: Int8Loss
    """Loss with the true kernel, so that no error of the estimate is added or removed."""
    images: int
    """Number of images."""
    kept: tuple[str, ...]
    """Names of the weights of the SR network's convolutions that stay in float32."""


@dataclass(frozen=True)
class Parity:
    """The differences between the three graphs and torch."""

    graphs: dict[str, GraphParity]
    """Differences of each graph, by name."""
    steps: tuple[StepParity, ...]
    """Differences of the loop after each step."""
    int8: Int8Parity | None = None
    """Loss by INT8; None for other precisions."""


@dataclass(frozen=True)
class UsrnetParity:
    """The difference between the USRNet graph and torch."""

    image_db: float
    """PSNR of the graph's image against torch's, peak 1, in dB."""
    rounding_db: float
    """PSNR between torch and torch that only rounds as the graph does, in dB."""
    frame_levels: float
    """Largest distance of a frame from torch's unrounded image, in 8-bit levels; 0 where the graph
    returns no frames."""


@dataclass(frozen=True)
class EngineOutput:
    """One output of one graph of an engine, compared with ONNX Runtime on the same input."""

    index: int
    """Index of the input."""
    name: str
    """Name of the output."""
    max_error: float | None
    """Maximum absolute error; None if it is not finite."""
    mean_error: float | None
    """Mean absolute error; None if it is not finite."""
    limit: float
    """Maximum allowed mean error."""
    passed: bool
    """Whether Polygraphy accepts the output."""


@dataclass(frozen=True)
class EngineStep:
    """The loops of an engine and of ONNX Runtime after a step, each with its own codes."""

    step: int
    """Step of the loop; 0 is the predictor's."""
    image_db: float | None
    """PSNR of the two `sr`, peak 1, at most 150 dB; None if one is not finite."""
    code_error: float | None
    """Largest absolute difference of any code component; None if it is not finite."""


@dataclass(frozen=True)
class Verification:
    """The result of comparing an engine with ONNX Runtime."""

    tools: dict[str, str]
    """Versions of the tools that compared."""
    frame: tuple[int, int]
    """Height and width of the LR frame."""
    graphs: dict[str, list[EngineOutput]]
    """Outputs of each graph, by name."""
    steps: list[EngineStep]
    """Comparison of the loop after each step."""
    passed: bool
    """Whether all outputs and steps are within their limits."""
