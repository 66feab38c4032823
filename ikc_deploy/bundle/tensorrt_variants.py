"""The two variants of TensorRT: each is loaded on first use, with one logger.

`tensorrt` builds on the GPU that will run the plan. `tensorrt-rtx` (TensorRT for RTX) builds ahead
of time for given compute capabilities, also without a GPU. The parts of their Python interfaces
that `ikc_deploy.engines` and `ikc_deploy.runtime` use are the same.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from ikc_deploy.errors import EngineError

TensorRTVariantName = Literal["tensorrt", "tensorrt-rtx"]

_MESSAGES_KEPT: Final = 64
_LOADING: Final = threading.Lock()

NOISE: Final = "catchCudaError"
"""Text in messages that TensorRT for RTX adds to every real error on a machine without a driver."""


@dataclass(frozen=True)
class TensorRTVariant:
    """The module and the versions of a variant of TensorRT."""

    name: TensorRTVariantName
    module: str
    """Name of the Python module and of its distribution."""
    at_least: str
    """Oldest supported version."""
    below: str
    """Oldest version that is too new."""

    @property
    def requirement(self) -> str:
        """Requirement for pip."""
        return f"{self.module}>={self.at_least},<{self.below}"


TENSORRT_VARIANTS: Final[dict[TensorRTVariantName, TensorRTVariant]] = {
    "tensorrt": TensorRTVariant("tensorrt", "tensorrt", "10.12", "12"),
    "tensorrt-rtx": TensorRTVariant("tensorrt-rtx", "tensorrt_rtx", "1.4", "2"),
}
"""Variants by name, in the order in which `auto` tries them."""


class Messages:
    """The last warnings and errors of one TensorRT library, for the messages of exceptions."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, bool, str]] = deque(maxlen=_MESSAGES_KEPT)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, text: str, error: bool) -> None:
        """Keep a message; any thread of TensorRT may call this."""
        with self._lock:
            self._count += 1
            self._kept.append((self._count, error, " ".join(text.split())))

    def mark(self) -> int:
        """Return the current position, for `since`."""
        return self._count

    def since(self, mark: int) -> str:
        """Return the errors after `mark` on one line, or the warnings if there are no errors."""
        with self._lock:
            new = [(error, text) for number, error, text in self._kept if number > mark]
        errors = [text for error, text in new if error]
        told = [text for text in errors if NOISE not in text] or errors
        return "; ".join(told or [text for _, text in new]) or "it reported no reason"


@dataclass(frozen=True, eq=False)
class TensorRT:
    """A loaded variant of TensorRT."""

    variant: TensorRTVariant
    version: str
    """Installed version."""
    module: Any
    """Python module of the variant."""
    logger: Any
    """Only `ILogger` of the process for this variant, used by every builder, parser and runtime:
    TensorRT ignores a second one."""
    messages: Messages
    """Messages that the logger received."""


def load_tensorrt(name: TensorRTVariantName) -> TensorRT:
    """Import a variant of TensorRT and return it, the same object every time.

    Args:
        name: "tensorrt" or "tensorrt-rtx".

    Returns:
        The loaded variant; it lives until the process ends.

    Raises:
        EngineError: It is not installed, does not load or has an unsupported version. The message
            contains the command that fixes it.
    """
    with _LOADING:
        return _load(name)


@cache
def _load(name: TensorRTVariantName) -> TensorRT:
    variant = TENSORRT_VARIANTS[name]
    fix = f"pip install '{variant.requirement}'"
    try:
        module = importlib.import_module(variant.module)
    except ModuleNotFoundError as error:
        if error.name != variant.module:
            raise EngineError(f"{variant.module} does not load: {error}; run: {fix}") from error
        raise EngineError(
            f"{name} needs the module {variant.module}, which is not installed; run: {fix}"
        ) from error
    except (ImportError, OSError) as error:
        raise EngineError(f"{variant.module} does not load: {error}; run: {fix}") from error
    version = str(module.__version__)
    if not _numbers(variant.at_least) <= _numbers(version) < _numbers(variant.below):
        raise EngineError(
            f"{variant.module} {version} is installed, and {variant.at_least} or newer, below "
            f"{variant.below}, is needed; run: {fix}"
        )
    messages = Messages()
    return TensorRT(variant, version, module, _logger(module, messages), messages)


def _logger(trt: Any, messages: Messages) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            # TensorRT's base classes must be initialised by name, or they crash later.
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.WARNING:
                messages.add(text, error=severity < trt.ILogger.WARNING)

    return Logger()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
