"""Coded video in chunks, so that an interrupted run can be resumed.

A work folder beside the output holds finished chunks, and a description of the run that they
belong to. A chunk is written under a temporary name and renamed when it is complete, so a file with
a final name is valid, even after kill -9. The name holds all facts about a chunk:

    out.mp4.ikc/run.json
    out.mp4.ikc/00000120-120-61440.nut      first frame's number, frames, first frame's time stamp

Every chunk is written by a new encoder and starts with a key frame. Its time stamps start at 0.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import av
from filelock import FileLock, Timeout

from ikc_deploy.errors import VideoError
from ikc_deploy.files import write_atomically
from ikc_deploy.video.colour import FromRgb
from ikc_deploy.video.encoders import Encoder, chunk_format, encoder_rate
from ikc_deploy.video.interfaces import Frame, StreamFacts
from ikc_deploy.video.opening import open_input, open_output
from ikc_deploy.video.write_errors import writing

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

_RUN_FILE: Final = "run.json"
_LOCK_FILE: Final = "lock"
_NAME: Final = re.compile(r"(\d+)-(\d+)-(-?\d+)\.(?:nut|mov)")


@dataclass(frozen=True)
class Chunk:
    """A finished chunk of coded video."""

    path: Path
    """File of the chunk."""
    first: int
    """Number of its first frame in the output, from 0 on."""
    frames: int
    """Number of its frames."""
    pts: int
    """Time stamp of its first frame in the output."""


class WorkFolder:
    """The folder of the chunks of one unfinished output, used by one process at a time.

    Args:
        target: The output; the folder has its name followed by .ikc.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.ikc")
        self._lock = FileLock(self.path / _LOCK_FILE)

    @property
    def exists(self) -> bool:
        """Whether there is an unfinished run to resume."""
        return (self.path / _RUN_FILE).is_file()

    def refuse_unfinished(self) -> None:
        """Raise `VideoError` if there is an unfinished run."""
        if self.exists:
            raise VideoError(
                f"'{self.path}' holds an unfinished run; continue it with --resume, or delete it"
            )

    def open(self, run: Mapping[str, Any], resume: bool) -> list[Chunk]:
        """Create and lock the folder.

        Args:
            run: Description of the run (JSON values).
            resume: Whether to resume an unfinished run with the same description.

        Returns:
            The finished chunks, as `chunks`.

        Raises:
            VideoError: Another process uses the folder; the folder has an unfinished run and
                `resume` is False; or that run has another description.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise VideoError(f"another process is writing '{self.target}'") from None
        try:
            if self.exists:
                self._check(run, resume)
            with writing(self.path):
                write_atomically(self.path / _RUN_FILE, json.dumps(run, indent=2).encode())
            return self.chunks()
        except BaseException:
            self._lock.release()
            raise

    def chunks(self) -> list[Chunk]:
        """Return the finished chunks from the first frame to the first gap; delete other files."""
        found = []
        for path in sorted(self.path.iterdir()):
            name = _NAME.fullmatch(path.name)
            if name is not None:
                found.append(Chunk(path, int(name[1]), int(name[2]), int(name[3])))
            elif path.name not in (_RUN_FILE, _LOCK_FILE):
                path.unlink()
        for index, chunk in enumerate(found):
            if chunk.first != sum(before.frames for before in found[:index]):
                return found[:index]
        return found

    def remove(self) -> None:
        """Delete the folder and everything in it."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)

    def release(self) -> None:
        """Unlock the folder for a later run; delete it if it has no chunk."""
        if self.path.is_dir() and not self.chunks():
            self.remove()
        self._lock.release()

    def _check(self, run: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            self.refuse_unfinished()
        before: dict[str, Any] = json.loads((self.path / _RUN_FILE).read_text())
        changed = [name for name in run if before.get(name) != json.loads(json.dumps(run[name]))]
        if changed:
            raise VideoError(
                f"the run in '{self.path}' was started with other settings "
                f"({', '.join(f'{name}: {before.get(name)}' for name in changed)}); "
                "use the same settings, or delete the folder"
            )


class ChunkWriter:
    """An encoder of frames into chunks.

    Args:
        folder: The work folder, which is open.
        encoder: Encoder of the output.
        facts: Properties of the output.
        first: Number of the first frame to write.
        frames_each: Maximum number of frames per chunk.
        cuts: Time stamps at which a chunk ends: it does not contain the first frame whose time
            stamp is equal to or later than a cut.
    """

    def __init__(
        self,
        folder: WorkFolder,
        encoder: Encoder,
        facts: StreamFacts,
        first: int,
        frames_each: int,
        cuts: Sequence[int] = (),
    ) -> None:
        self._folder = folder
        self._encoder = encoder
        self._facts = facts
        self._next = first
        self._frames_each = frames_each
        self._cuts = deque(sorted(cuts))
        self._from_rgb = FromRgb(facts.colour, encoder.pixel_format)
        self._open: _OpenChunk | None = None

    def write(self, frame: Frame) -> None:
        """Encode the next frame.

        Raises:
            DiskFullError: The disk is full.
            VideoError: The frame cannot be encoded or written.
        """
        try:
            with writing(self._folder.target):
                self._write(frame)
        except BaseException:
            # The chunk may lack a packet.
            self.abort()
            raise

    def _write(self, frame: Frame) -> None:
        while self._cuts and self._cuts[0] <= frame.pts:
            self._cuts.popleft()
            self.finish()
        if self._open is None:
            self._open = _OpenChunk(
                self._folder.path, self._encoder, self._facts, self._next, frame.pts
            )
        coded = self._from_rgb(frame.rgb)
        coded.pts, coded.time_base = frame.pts - self._open.pts, self._facts.time_base
        self._open.write(coded)
        self._next += 1
        if self._open.frames == self._frames_each:
            self.finish()

    def finish(self) -> None:
        """Finish the current chunk, if there is one; raise what `write` raises."""
        chunk, self._open = self._open, None
        if chunk is None:
            return
        try:
            with writing(self._folder.target):
                chunk.finish()
        except BaseException:
            chunk.abort()
            raise

    def abort(self) -> None:
        """Discard the current chunk."""
        if self._open is not None:
            self._open.abort()
            self._open = None


class _OpenChunk:
    def __init__(
        self, folder: Path, encoder: Encoder, facts: StreamFacts, first: int, pts: int
    ) -> None:
        self.first, self.pts, self.frames = first, pts, 0
        self._format = chunk_format(encoder.name)
        self._path = folder / f"unfinished.{self._format}"
        self._container: OutputContainer = open_output(self._path, self._format)
        rate, options = encoder_rate(facts), dict(encoder.options)
        stream = self._container.add_stream(encoder.name, rate, options=options)
        self._stream = cast("VideoStream", stream)
        encoder.configure(self._stream.codec_context, facts)
        self._stream.time_base = facts.time_base

    def write(self, frame: av.VideoFrame) -> None:
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def finish(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()
        name = f"{self.first:08d}-{self.frames}-{self.pts}.{self._format}"
        self._path.rename(self._path.with_name(name))

    def abort(self) -> None:
        # The file is deleted, so errors while closing it do not matter.
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        self._path.unlink(missing_ok=True)


def read_packets(chunks: Sequence[Chunk], time_base: Fraction) -> Iterator[av.Packet[Any]]:
    """Yield the coded frames of chunks in order of decoding, with `pts` in `time_base`, no `dts`.

    Raises:
        VideoError: The number of frames of a chunk is not the one in its name.
    """
    for chunk in chunks:
        with open_chunk(chunk) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        # The muxer shifts the time stamps of a chunk so that none is negative; the first is known.
        begin = min((cast(int, packet.pts) for packet in packets), default=0)
        if len(packets) != chunk.frames:
            raise VideoError(
                f"'{chunk.path}' holds {len(packets)} frames instead of {chunk.frames}; "
                "delete its folder and start again"
            )
        for packet in packets:
            ticks = (cast(int, packet.pts) - begin) * packet.time_base / time_base
            packet.pts, packet.dts = chunk.pts + round(ticks), None
            packet.time_base = time_base
            yield packet


def open_chunk(chunk: Chunk) -> InputContainer:
    """Open a chunk for reading."""
    return open_input(chunk.path, str(chunk.path))
