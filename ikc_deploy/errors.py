"""The error family: one base, narrow subclasses, and messages that say what to do next.

The command line turns every `IkcError` into one line on standard error and exit code 2.
"""

from __future__ import annotations


class IkcError(Exception):
    """Base of every error that ikc-deploy raises on purpose."""


class InputError(IkcError):
    """A frame, image, file or argument from outside cannot be used as it is."""


class OutputError(IkcError):
    """An output cannot be written: something would be lost, another writes it, or no place is."""


class KernelError(IkcError):
    """A blur kernel, kernel code or basis has the wrong shape, range or identity."""


class CheckpointError(IkcError):
    """A checkpoint is missing, damaged, or holds other networks than were asked for."""


class RecipeError(IkcError):
    """A training recipe has a missing, unknown or impossible setting."""


class TrainingError(IkcError):
    """A training cannot go on: its loss or its weights are no finite numbers any more."""


class ExportError(IkcError):
    """A graph could not be exported, or failed its parity or precision gate."""


class BundleError(IkcError):
    """A bundle is missing, incomplete, altered, or from another schema version."""


class EngineError(IkcError):
    """A TensorRT engine cannot be built here, or none of a bundle's engines fits this machine."""


class BackendError(IkcError):
    """No backend can run the graphs here, or the backend refused one."""


class OutOfMemoryError(BackendError):
    """The device has not enough memory for a frame or tile of this size."""


class VideoError(IkcError):
    """A video cannot be read, upscaled or written as asked."""


class UnreadableClipError(VideoError):
    """A clip is missing, damaged beyond use, or in no format that can be decoded."""


class NoVideoError(VideoError):
    """A clip has no video stream."""


class DiskFullError(VideoError):
    """There is no room left for the output."""


class EncoderError(VideoError):
    """No encoder opens for the output that was asked for."""


class CameraError(VideoError):
    """A camera does not answer, or changed what it delivers."""


class MissingExtraError(IkcError):
    """A command needs an optional dependency that is not installed.

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
