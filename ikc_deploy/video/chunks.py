"""Coded video in chunks, so that an interrupted run can be resumed.

A work folder beside the output holds finished pieces, and a description of the run that they
belong to. A piece is written under another name and renamed when it is whole, so what has its
final name can be trusted, even after kill -9. The name says everything about it:

    out.mp4.ikc/run.json
    out.mp4.ikc/00000120-120-61440.nut      first frame's number, frames, first frame's time stamp

Every piece starts with a key frame of an encoder of its own. Inside, time stamps count from 0.
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
from ikc_deploy.video.encoders import Encoder, piece_format
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
    """A finished piece."""

    path: Path
    first: int
    """The number of its first frame."""
    frames: int
    pts: int
    """The time stamp of its first frame."""


class WorkFolder:
    """The folder of one unfinished output; one process at a time."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.ikc")
        self._lock = FileLock(self.path / _LOCK_FILE)

    @property
    def exists(self) -> bool:
        """True if there is something to go on with."""
        return (self.path / _RUN_FILE).is_file()

    def open(self, run: Mapping[str, Any], resume: bool) -> list[Chunk]:
        """Take the folder for a run described by `run` (JSON values); the pieces that it has.

        Raises `VideoError` if another process has it, if it holds a run and `resume` is False, or
        if that run was described otherwise.
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
        """The finished pieces from the first frame on, without a gap; what else is there goes."""
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
        """Leave the folder to whoever goes on with it; delete it if it holds no piece."""
        if self.path.is_dir() and not self.chunks():
            self.remove()
        self._lock.release()

    def _check(self, run: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            raise VideoError(
                f"'{self.path}' holds an unfinished run; go on with --resume, or delete it"
            )
        before: dict[str, Any] = json.loads((self.path / _RUN_FILE).read_text())
        changed = [name for name in run if before.get(name) != json.loads(json.dumps(run[name]))]
        if changed:
            raise VideoError(
                f"the run in '{self.path}' was begun with other settings "
                f"({', '.join(f'{name}: {before.get(name)}' for name in changed)}); "
                "repeat them, or delete the folder"
            )


class ChunkWriter:
    """Encodes frames into pieces of `frames_each`, from frame number `first` on.

    A piece also ends before a frame that is shown at, or first after, one of the `cuts`.
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
        """Encode the next frame. Raises `DiskFullError` or `VideoError`."""
        try:
            with writing(self._folder.target):
                self._write(frame)
        except BaseException:
            # A packet may be missing from it.
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
        """Finish the piece in hand, if there is one. Raises as `write` does."""
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
        """Forget the piece in hand."""
        if self._open is not None:
            self._open.abort()
            self._open = None


class _OpenChunk:
    def __init__(
        self, folder: Path, encoder: Encoder, facts: StreamFacts, first: int, pts: int
    ) -> None:
        self.first, self.pts, self.frames = first, pts, 0
        self._format = piece_format(encoder.name)
        self._path = folder / f"unfinished.{self._format}"
        self._container: OutputContainer = open_output(self._path, self._format)
        self._stream = cast(
            "VideoStream",
            self._container.add_stream(encoder.name, facts.rate, options=dict(encoder.options)),
        )
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
        # It is thrown away, so it need not be whole.
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        self._path.unlink(missing_ok=True)


def read_packets(chunks: Sequence[Chunk], time_base: Fraction) -> Iterator[av.Packet[Any]]:
    """The coded frames of the pieces in order of decoding, with `pts` in `time_base` and no `dts`.

    Raises `VideoError` for a piece that does not hold what its name says.
    """
    for chunk in chunks:
        with open_chunk(chunk) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        # The muxer moves all time stamps of a piece so that none is negative; the first is known.
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
    """A piece, opened for reading."""
    return open_input(chunk.path, str(chunk.path))
