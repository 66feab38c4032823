"""A video file as a sink: pieces in a work folder, joined at the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ikc_deploy.errors import IkcError
from ikc_deploy.video.chunks import ChunkWriter, WorkFolder
from ikc_deploy.video.clip import Clip
from ikc_deploy.video.encoders import EncoderSettings, choose_encoder
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.mux import mux
from ikc_deploy.video.names import container_of
from ikc_deploy.video.passthrough import check_output
from ikc_deploy.video.split_points import split_ranges

CHUNK_FRAMES: Final = 120
"""Frames of a piece: what a crash costs at most. Encoders set key frames about as often anyway."""


@dataclass(frozen=True)
class FileSettings:
    """How a video file is written."""

    target: Path
    """Its suffix chooses the container."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    resume: bool = False
    """Go on with the pieces that an earlier run with the same settings left."""
    chunk_frames: int = CHUNK_FRAMES


class FileSink:
    """Writes `settings.target` for frames with `facts`, upscaled as `run` describes (JSON values).

    With a `clip`, its audio, subtitles, attachments, metadata and chapters go along. `warnings`
    says what of it will be missing or is coded anew. What cannot be written at the end is refused
    here: raises `VideoError`, `EncoderError` or `DiskFullError`.
    """

    def __init__(
        self,
        settings: FileSettings,
        facts: StreamFacts,
        run: dict[str, Any],
        clip: Clip | None = None,
    ) -> None:
        container = container_of(settings.target)
        encoder = choose_encoder(settings.encoder, facts, container)
        self._passthrough, self.warnings = check_output(settings.target, encoder, facts, clip)
        if clip is not None:
            run = run | _identity(clip)
        self._target = settings.target
        self._facts = facts
        self._clip = clip
        self._folder = WorkFolder(settings.target)
        chunks = self._folder.open(run | {"encoder": asdict(encoder)}, settings.resume)
        self.done = sum(chunk.frames for chunk in chunks)
        """Frames that finished pieces hold already."""
        self._writer = ChunkWriter(
            self._folder, encoder, facts, self.done, settings.chunk_frames, _cuts(settings, clip)
        )

    def write(self, frame: Frame) -> None:
        """Encode the next frame."""
        self._writer.write(frame)

    def finish(self, complete: bool) -> list[str]:
        """Join what there is to the target; the pieces stay unless the output is `complete`."""
        self._writer.finish()
        chunks, lost = self._folder.chunks(), []
        if chunks:
            companions = self._passthrough
            if companions is not None:
                companions = replace(companions, cut=self._cut_off(complete))
            lost = mux(chunks, self._facts, self._target, companions)
        if complete:
            self._folder.remove()
        else:
            self._folder.release()
        return lost

    def abort(self) -> None:
        """Keep what was coded, for a run that goes on with it; write no target."""
        try:
            self._writer.finish()
        except IkcError:
            self._writer.abort()
        self._folder.release()

    def _cut_off(self, complete: bool) -> bool:
        """True if the source goes on after the last frame."""
        return not complete or (self._clip is not None and self._clip.span.duration is not None)


def _cuts(settings: FileSettings, clip: Clip | None) -> list[int]:
    """Where the source could be worked on in parts, so that the output is the same if it was."""
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
        "source": str(path.resolve()),
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
        "start": str(clip.span.start),
        "duration": str(clip.span.duration),
    }
