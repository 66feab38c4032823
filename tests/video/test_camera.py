from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ikc_deploy.errors import CameraError, VideoError
from ikc_deploy.video.camera import Camera, CameraSettings, redacted
from ikc_deploy.video.file_sink import FileSink
from ikc_deploy.video.video_run import upscale_stream
from tests.samples import photo
from tests.video.clips import Repeating, make_clip, number_of, numbered, packets, settings

PATTERN = "lavfi:testsrc2=size=64x48:rate=25"
SECRET = "hunter2"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and its address; every clip in it is a camera that hangs up at its end."""
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield tmp_path, f"http://admin:{SECRET}@127.0.0.1:{running.server_port}/cam.ts"
        running.shutdown()
        thread.join()


def quick(address: str, **changes: Any) -> CameraSettings:
    return CameraSettings(address, first_wait=0.01, longest_wait=0.02, **changes)


def test_a_lost_camera_is_connected_again(server: tuple[Path, str]) -> None:
    folder, address = server
    make_clip(folder / "cam.ts", map(numbered, range(10)))
    stop, said = threading.Event(), list[str]()
    camera = Camera(quick(address), stop, said.append)
    frames = []
    for frame in camera.frames():
        frames.append(frame)
        if len(frames) == 25:
            stop.set()
    assert [number_of(frame.rgb) for frame in frames] == [*range(10), *range(10), *range(5)]
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert camera.reconnects == 2
    assert any("connection lost" in line for line in said)
    assert SECRET not in "".join(said) + repr(camera.facts)


def test_a_camera_that_stays_away_is_tried_less_often(server: tuple[Path, str]) -> None:
    folder, address = server
    clip = make_clip(folder / "cam.ts", map(numbered, range(10)))
    stop, said = threading.Event(), list[str]()

    def hear(line: str) -> None:
        said.append(line)
        if len(said) == 6:
            stop.set()

    camera = Camera(CameraSettings(address, first_wait=0.01, longest_wait=0.04), stop, hear)
    clip.unlink()
    assert len(list(camera.frames())) == 10
    waits = [line.rpartition(" in ")[2] for line in said if "next attempt" in line]
    assert waits == ["0.02 s", "0.04 s", "0.04 s", "0.04 s", "0.04 s"]
    assert SECRET not in "".join(said)


def test_another_picture_size_after_a_reconnection_is_an_error(server: tuple[Path, str]) -> None:
    folder, address = server
    clip = make_clip(folder / "cam.ts", map(numbered, range(10)))
    camera = Camera(quick(address), threading.Event())
    frames = camera.frames()
    next(frames)
    make_clip(clip, [photo(64, 96)] * 10)
    with pytest.raises(VideoError, match="changes from 80x48 to 96x64"):
        list(frames)


def test_no_message_holds_the_password() -> None:
    for address in (f"rtsp://admin:{SECRET}@127.0.0.1:9/x", f"http://127.0.0.1:9/?key={SECRET}"):
        settings = CameraSettings(address)
        with pytest.raises(CameraError, match=r"127\.0\.0\.1:9.* does not answer") as caught:
            Camera(settings, threading.Event())
        error = caught.value
        assert error.__cause__ is None and error.__suppress_context__
        assert SECRET not in f"{error} {error!r} {settings!r} {settings.name}"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("0", "/dev/video0"),
        ("rtsp://u:p@ss/w?#@host:554/live?token=1", "rtsp://host:554/live"),
        ("rtsp://host/live#frag", "rtsp://host/live"),
        ("/dev/video3", "/dev/video3"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    assert redacted(address) == shown


def test_a_recording_drops_what_it_cannot_keep_up_with(tmp_path: Path) -> None:
    """The stand-in is a test pattern that comes as fast as it is asked for."""
    stop = threading.Event()
    camera = Camera(quick(PATTERN), stop)
    held = threading.Event()

    def wait(calls: int) -> None:
        held.wait(0.02)
        if calls == 9:
            stop.set()

    target = tmp_path / "out.mp4"
    sink = FileSink(settings(target), camera.facts.scaled(2), {})
    outcome = upscale_stream(camera, Repeating(before=wait), sink, stop, live=True)
    assert outcome.frames == 10
    assert outcome.dropped > 0
    assert len(packets(target, "video")) == 10


def test_a_camera_for_some_seconds_ends_by_itself() -> None:
    camera = Camera(quick(PATTERN, seconds=0.2), threading.Event())
    last = list(camera.frames())[-1]
    assert last.pts * camera.facts.time_base <= 0.2
