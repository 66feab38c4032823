"""Choice of the variant of TensorRT that builds for a target on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from ikc_deploy.bundle.engine_choice import Host
from ikc_deploy.bundle.gpus import find_gpus
from ikc_deploy.bundle.tensorrt_variants import (
    TENSORRT_VARIANTS,
    TensorRT,
    TensorRTVariantName,
    load_tensorrt,
)
from ikc_deploy.engines.targets import Target
from ikc_deploy.errors import EngineError


@dataclass(frozen=True)
class Toolchain:
    """A loaded variant of TensorRT, and the GPUs that it builds for."""

    library: TensorRT
    """Loaded variant."""
    compute_capabilities: tuple[str, ...]
    """Compute capabilities such as "8.9", in ascending order."""

    @property
    def name(self) -> TensorRTVariantName:
        """Name of the variant."""
        return self.library.variant.name

    @property
    def ahead_of_time(self) -> bool:
        """Whether the variant builds for GPUs that are not in this machine."""
        return self.name == "tensorrt-rtx"

    def __str__(self) -> str:
        """Return the variant, its version and the compute capabilities in words."""
        capabilities = ", ".join(self.compute_capabilities)
        return f"{self.name} {self.library.version} for compute capability {capabilities}"


def choose_toolchain(
    variant: TensorRTVariantName | Literal["auto"], target: Target
) -> tuple[Toolchain, dict[TensorRTVariantName, str]]:
    """Return a toolchain for `target`, and the reasons why "auto" skipped variants.

    Args:
        variant: Name of a variant. "auto" takes `tensorrt`, which tunes on the GPU itself, if the
            target's GPU is in this machine, and otherwise `tensorrt-rtx`.
        target: Settings of the build.

    Raises:
        EngineError: No variant, or not the requested one, can build the target here.
    """
    if variant != "auto":
        return prepare_toolchain(variant, target), {}
    skipped: dict[TensorRTVariantName, str] = {}
    for name in TENSORRT_VARIANTS:
        try:
            return prepare_toolchain(name, target), skipped
        except EngineError as error:
            skipped[name] = str(error)
    raise EngineError("no engine can be built here. " + ". ".join(skipped.values()))


def prepare_toolchain(variant: TensorRTVariantName, target: Target) -> Toolchain:
    """Load `variant` and check that it can build `target` on this machine.

    Raises:
        EngineError: The variant is not installed, needs a GPU that is missing, or does not support
            a compute capability.
    """
    if variant == "tensorrt":
        capability = _capability_for_tensorrt(target)
        return Toolchain(load_tensorrt(variant), (capability,))
    library = load_tensorrt(variant)
    return Toolchain(library, _capabilities_for_rtx(target, library))


def _capability_for_tensorrt(target: Target) -> str:
    here, reason = _capabilities_here()
    wanted = ", ".join(target.compute_capabilities)
    if not here:
        raise EngineError(
            "tensorrt builds on the target GPU itself"
            + (f" (compute capability {wanted})" if wanted else "")
            + f", but there is no GPU here: {reason}. Run it on the target, or use tensorrt-rtx, "
            "which builds ahead of time"
        )
    if len(here) > 1:
        raise EngineError(
            f"tensorrt builds on one GPU, but those here differ (compute capability "
            f"{', '.join(here)}); make only one visible, as with docker run --gpus device=0"
        )
    if target.compute_capabilities and here[0] not in target.compute_capabilities:
        raise EngineError(
            f"the target is for compute capability {wanted}, but the GPU here has {here[0]}; "
            "tensorrt builds on the target GPU itself"
        )
    return here[0]


def _capabilities_for_rtx(target: Target, library: TensorRT) -> tuple[str, ...]:
    wanted = set(target.compute_capabilities)
    if not wanted:
        here, reason = _capabilities_here()
        if not here:
            raise EngineError(
                f"there is no GPU here to build for ({reason}); name the GPUs with --target, as "
                "--target rtx-desktop"
            )
        wanted = set(here)
    known = rtx_capabilities(library.module)
    unknown = wanted - set(known)
    if unknown:
        raise EngineError(
            f"tensorrt-rtx {library.version} does not support compute capability "
            f"{', '.join(_ascending(unknown))}; it builds for {', '.join(known)}. tensorrt builds "
            "for others, on the GPU itself"
        )
    return _ascending(wanted)


def this_host(variant: TensorRTVariantName) -> Host:
    """Return this machine as a host of engines: the variant's version and the first GPU."""
    gpus, _ = find_gpus()
    capability = gpus[0].compute_capability if gpus else None
    try:
        return Host(variant, load_tensorrt(variant).version, capability)
    except EngineError as error:
        return Host(variant, None, capability, problem=str(error))


def rtx_capabilities(trt: Any) -> tuple[str, ...]:
    """Return the compute capabilities that this version of TensorRT for RTX supports."""
    numbers = (re.fullmatch(r"SM(\d+)(\d)", name) for name in trt.ComputeCapability.__members__)
    return _ascending({f"{match[1]}.{match[2]}" for match in numbers if match})


def rtx_member(trt: Any, capability: str) -> Any:
    """Return the library's constant for a compute capability such as "8.9"."""
    return getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}")


def _capabilities_here() -> tuple[tuple[str, ...], str]:
    gpus, reason = find_gpus()
    return _ascending({gpu.compute_capability for gpu in gpus}), reason


def _ascending(capabilities: set[str]) -> tuple[str, ...]:
    return tuple(sorted(capabilities, key=lambda text: [int(part) for part in text.split(".")]))
