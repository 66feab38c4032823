"""Exceptions: one base class, narrow subclasses, and messages that say how to fix the problem.

Commands print an `IkcError` as one line on standard error and exit with code 2.
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

    It would overwrite other files, another process is writing it, or the path is not writable.
    """


class KernelError(IkcError):
    """A blur kernel, kernel code or basis with the wrong shape, range or identity."""


class CheckpointError(IkcError):
    """A checkpoint that is missing, damaged, or does not contain the requested networks."""


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
    """A backend that cannot run the graphs on this machine, or that failed."""


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
    """An optional dependency that is not installed.

    The message contains the `pip install` command for the extra.

    Args:
        module: Name of the missing module.
        extra: Extra of ikc-deploy that installs it.
        purpose: What needs the module; the message begins with it.
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
    """Convert a `ModuleNotFoundError` in the block to a `MissingExtraError`.

    Args:
        extra: Extra of ikc-deploy that installs the module.
        purpose: What needs the module; the message begins with it.

    Raises:
        MissingExtraError: A module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or extra, extra, purpose) from error
