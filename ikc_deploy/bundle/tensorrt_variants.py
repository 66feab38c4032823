"""The two variants of TensorRT: loaded when asked for, never before, with one logger each.

`tensorrt` builds on the GPU that will run the plan. `tensorrt-rtx` (TensorRT for RTX) builds ahead
of time for named compute capabilities, also without a GPU. Their Python interfaces are the same as
far as `ikc_deploy.engines` and `ikc_deploy.runtime` use them.
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
"""On a machine without a driver, TensorRT for RTX adds a message with this to every real one."""


@dataclass(frozen=True)
class TensorRTVariant:
    """What to import and install."""

    name: TensorRTVariantName
    module: str
    at_least: str
    below: str

    @property
    def requirement(self) -> str:
        """What to hand to pip."""
        return f"{self.module}>={self.at_least},<{self.below}"


TENSORRT_VARIANTS: Final[dict[TensorRTVariantName, TensorRTVariant]] = {
    "tensorrt": TensorRTVariant("tensorrt", "tensorrt", "10.12", "12"),
    "tensorrt-rtx": TensorRTVariant("tensorrt-rtx", "tensorrt_rtx", "1.1", "2"),
}
"""In the order in which `auto` tries them."""


class Messages:
    """The last warnings and errors of one TensorRT library, so that exceptions can carry them."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, bool, str]] = deque(maxlen=_MESSAGES_KEPT)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, text: str, error: bool) -> None:
        """Keep a message; TensorRT calls this from any of its threads."""
        with self._lock:
            self._count += 1
            self._kept.append((self._count, error, " ".join(text.split())))

    def mark(self) -> int:
        """Now, for `since`."""
        return self._count

    def since(self, mark: int) -> str:
        """The errors after `mark` in one line; if there were none, the warnings."""
        with self._lock:
            new = [(error, text) for number, error, text in self._kept if number > mark]
        errors = [text for error, text in new if error]
        told = [text for text in errors if NOISE not in text] or errors
        return "; ".join(told or [text for _, text in new]) or "it gave no reason"


@dataclass(frozen=True, eq=False)
class TensorRT:
    """A loaded variant."""

    variant: TensorRTVariant
    version: str
    module: Any
    """The Python module."""
    logger: Any
    """The process's only `ILogger` of this variant: TensorRT ignores a second one. Every builder,
    parser and runtime takes it."""
    messages: Messages
    """What the logger was told."""


def load_tensorrt(name: TensorRTVariantName) -> TensorRT:
    """Import a variant; the same object every time.

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
