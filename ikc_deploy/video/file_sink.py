"""A video file as a sink: chunks in a work folder, which are joined at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ikc_deploy.errors import IkcError
from ikc_deploy.files import real_path
from ikc_deploy.video.chunks import ChunkWriter, WorkFolder
from ikc_deploy.video.clip import Clip
from ikc_deploy.video.encoder_settings import EncoderSettings
from ikc_deploy.video.encoders import choose_encoder
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.mux import mux
from ikc_deploy.video.names import container_of
from ikc_deploy.video.split_points import split_ranges
from ikc_deploy.video.trial import check_output

CHUNK_FRAMES: Final = 120
"""Frames per chunk, the maximum that a crash loses. Encoders set key frames about as often."""


@dataclass(frozen=True)
class FileSettings:
    """The settings of a video file to write."""

    target: Path
    """File to write; its suffix selects the container."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """Requested codec and quality."""
    resume: bool = False
    """Whether to resume from the chunks of an earlier run with the same settings."""
    chunk_frames: int = CHUNK_FRAMES
    """Frames per chunk."""


class FileSink:
    """A sink that writes a video file.

    `warnings` lists what the output will lack, and which audio is re-encoded. Everything that is
    written at the end is tried when the sink is created.

    Args:
        settings: The file, the codec, and whether to resume.
        facts: Properties of the output frames.
        run: Description of the upscaling (JSON values), which a resumed run must share.
        clip: The source clip, whose audio, subtitles, attachments, metadata and chapters are
            copied; None for none.

    Raises:
        VideoError: The output cannot be written, or the work folder cannot be used.
        EncoderError: No encoder works.
        DiskFullError: The disk is full.
    """

    def __init__(
        self,
        settings: FileSettings,
        facts: StreamFacts,
        run: Mapping[str, Any],
        clip: Clip | None = None,
    ) -> None:
        container = container_of(settings.target)
        encoder = choose_encoder(settings.encoder, facts, container)
        self._passthrough, self.warnings = check_output(settings.target, encoder, facts, clip)
        if clip is not None:
            run = {**run, **_identity(clip)}
        self._target = settings.target
        self._facts = facts
        self._clip = clip
        self._folder = WorkFolder(settings.target)
        chunks = self._folder.open({**run, "encoder": asdict(encoder)}, settings.resume)
        self.done = sum(chunk.frames for chunk in chunks)
        """Number of frames in the finished chunks of an earlier run."""
        self._writer = ChunkWriter(
            self._folder, encoder, facts, self.done, settings.chunk_frames, _cuts(settings, clip)
        )

    def write(self, frame: Frame) -> None:
        """Encode the next frame."""
        self._writer.write(frame)

    def finish(self, complete: bool) -> list[str]:
        """Join the chunks to the target; keep the chunks unless the output is `complete`."""
        self._writer.finish()
        chunks, lost = self._folder.chunks(), []
        if chunks:
            passthrough = self._passthrough
            if passthrough is not None:
                passthrough = replace(passthrough, cut=self._cut_off(complete))
            lost = mux(chunks, self._facts, self._target, passthrough)
        if complete:
            self._folder.remove()
        else:
            self._folder.release()
        return lost

    def abort(self) -> None:
        """Keep the coded frames for a later run that resumes; write no target."""
        try:
            self._writer.finish()
        except IkcError:
            self._writer.abort()
        self._folder.release()

    def _cut_off(self, complete: bool) -> bool:
        """Return whether the source has more frames after the last one of the output."""
        return not complete or (self._clip is not None and self._clip.span.duration is not None)


def _cuts(settings: FileSettings, clip: Clip | None) -> list[int]:
    """Return where a batch would split the source, so that both have the same key frames."""
    ranges = [] if clip is None else split_ranges(clip, settings.chunk_frames)
    return [
        clip_range.begin - clip.origin
        for clip_range in ranges
        if clip and clip_range.begin is not None
    ]


def _identity(clip: Clip) -> dict[str, Any]:
    path = Path(clip.name)
    status = path.stat()
    return {
        "source": str(real_path(path)),
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
        "start": str(clip.span.start),
        "duration": str(clip.span.duration),
    }
