"""Exceptions: one base class, narrow subclasses, and messages that state what to do next.

The command line turns every `IkcError` into one line on standard error and exit code 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class IkcError(Exception):
    """Base class of every error that ikc-deploy raises on purpose."""


class InputError(IkcError):
    """An invalid frame, image, file or argument from the caller."""


class OutputError(IkcError):
    """An output that cannot be written.

    Other files would be lost, another process is writing it, or the path is not writable.
    """


class KernelError(IkcError):
    """A blur kernel, kernel code or basis with the wrong shape, range or identity."""


class CheckpointError(IkcError):
    """A checkpoint that is missing or damaged, or holds other networks than requested."""


class RecipeError(IkcError):
    """A training recipe with a missing, unknown or invalid setting."""


class TrainingError(IkcError):
    """A training that cannot continue: its loss or its weights are no longer finite."""


class ExportError(IkcError):
    """A graph that could not be exported, or that failed its parity or precision gate."""


class BundleError(IkcError):
    """A bundle that is missing, incomplete, altered, or from another schema version."""


class EngineError(IkcError):
    """A TensorRT engine that cannot be built here, or a bundle without one for this machine."""


class BackendError(IkcError):
    """A backend that cannot run the graphs on this machine, or that refused one."""


class OutOfMemoryError(BackendError):
    """Too little memory on the device for a frame or tile of this size."""


class VideoError(IkcError):
    """A video that cannot be read, upscaled or written as requested."""


class UnreadableClipError(VideoError):
    """A clip that is missing, too damaged to use, or in a format that cannot be decoded."""


class NoVideoError(VideoError):
    """A clip without a video stream."""


class DiskFullError(VideoError):
    """No space left on the disk for the output."""


class EncoderError(VideoError):
    """No usable encoder for the requested output."""


class CameraError(VideoError):
    """A camera that does not respond, or that changed its format."""


class MissingExtraError(IkcError):
    """An optional dependency that is needed and not installed.

    The message names the extra, so that one `pip install` fixes it.

    Args:
        module: Name of the missing module.
        extra: Name of the extra of ikc-deploy that installs it.
        purpose: What needs the module, at the beginning of the message.
    """

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the module '{module}', which is not installed. "
            f"Install it with: pip install 'ikc-deploy[{extra}]'"
        )
        self.module = module
        self.extra = extra


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Turn a missing module in the block, which imports it, into a `MissingExtraError`.

    Args:
        extra: Name of the extra of ikc-deploy that installs the module.
        purpose: What needs the module, at the beginning of the message.

    Raises:
        MissingExtraError: A module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or extra, extra, purpose) from error
