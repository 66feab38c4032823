from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ikc_deploy
from ikc_deploy import Bundle, InputError, KernelError, Upscaler
from tests.repeating import repeated
from tests.samples import photo


@pytest.fixture(scope="module")
def upscaler(bundle: Bundle) -> Upscaler:
    return ikc_deploy.load(bundle, iters=1)


def numbered(count: int, closed: list[bool] | None = None) -> Iterator[NDArray[np.uint8]]:
    """Frames that are as bright as their number."""
    try:
        for number in range(count):
            yield np.full((16, 24, 3), number, np.uint8)
    finally:
        if closed is not None:
            closed.append(True)


def test_results_come_in_order_and_only_when_asked_for(upscaler: Upscaler) -> None:
    stream = upscaler.stream(numbered(9), sigma=1.0)
    assert stream.status.frames_in == 0
    for number, result in enumerate(stream):
        assert np.array_equal(result.image, repeated(np.full((16, 24, 3), number, np.uint8)))
        assert stream.status.frames_in == stream.status.frames_out == number + 1
    assert number == 8


def test_a_clip_may_have_a_known_kernel_or_code(upscaler: Upscaler) -> None:
    frames = [photo(16, 24, seed) for seed in range(2)]
    kernel = ikc_deploy.gaussian_kernel(1.2)
    code = upscaler.bundle.basis.encode(kernel)
    for blur in ({"kernel": kernel}, {"code": code}):
        for frame, result in zip(frames, upscaler.stream(frames, **blur), strict=True):
            assert np.array_equal(result.image, upscaler(frame, **blur).image)
            assert result.corrections == 0
    # A wrong blur is refused before the first frame is taken.
    with pytest.raises(InputError, match="got kernel and code"):
        upscaler.stream(numbered(2), kernel=kernel, code=code)
    with pytest.raises(KernelError, match=r"must lie in"):
        upscaler.stream(numbered(2), sigma=99)


def test_the_status_says_how_it_goes(upscaler: Upscaler) -> None:
    stream = upscaler.stream(numbered(3))
    before = stream.status
    assert (before.frames_in, before.frames_out, before.dropped) == (0, 0, 0)
    assert before.sigma is None and before.p50_ms == before.p90_ms == {}
    results = list(stream)
    after = stream.status
    assert (after.frames_in, after.frames_out, after.dropped) == (3, 3, 0)
    assert after.sigma == results[-1].sigma
    stages = {"wait", "predictor", "sftmd", "corrector", "total"}
    assert set(after.p50_ms) == set(after.p90_ms) == stages
    totals = [result.timings["total"] for result in results]
    assert after.p50_ms["total"] == pytest.approx(np.median(totals))
    assert after.p90_ms["total"] == pytest.approx(np.percentile(totals, 90))


def test_threads_share_a_stream_and_every_frame_is_done_once(upscaler: Upscaler) -> None:
    stream = upscaler.stream(numbered(40), sigma=1.0)
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda _: [int(r.image[0, 0, 0]) for r in stream], range(4)))
    assert sorted(number for part in parts for number in part) == list(range(40))
    assert all(part == sorted(part) for part in parts)
    assert stream.status.frames_out == 40


def test_leaving_a_stream_closes_its_frames(upscaler: Upscaler) -> None:
    closed: list[bool] = []
    with upscaler.stream(numbered(9, closed)) as stream:
        next(stream)
    assert closed == [True]
    assert list(stream) == []


def test_a_stream_that_is_closed_while_a_frame_is_read_closes_its_frames_then(
    upscaler: Upscaler,
) -> None:
    closed: list[bool] = []
    reading, go_on = threading.Event(), threading.Event()

    def waiting() -> Iterator[NDArray[np.uint8]]:
        for frame in numbered(9, closed):
            yield frame
            reading.set()
            assert go_on.wait(10)

    stream = upscaler.stream(waiting(), sigma=1.0)
    with ThreadPoolExecutor(1) as threads:
        results = threads.submit(list, stream)
        assert reading.wait(10)
        stream.close()
        go_on.set()
        assert len(results.result(10)) == 1
    assert closed == [True]


def test_the_newest_frame_of_a_live_source_wins(upscaler: Upscaler) -> None:
    """The source runs ahead while the first result is made."""
    first_taken, rest_sent = threading.Event(), threading.Event()

    def camera() -> Iterator[NDArray[np.uint8]]:
        frames = numbered(10)
        yield next(frames)
        first_taken.wait(10)
        yield from frames
        rest_sent.set()

    with upscaler.stream(camera(), sigma=1.0, live=True) as stream:
        seen = [int(next(stream).image[0, 0, 0])]
        first_taken.set()
        assert rest_sent.wait(10)
        seen += [int(result.image[0, 0, 0]) for result in stream]
    assert seen == [0, 9]
    status = stream.status
    assert (status.frames_in, status.frames_out, status.dropped) == (10, 2, 8)


@pytest.mark.parametrize("live", [False, True])
def test_what_goes_wrong_in_a_source_is_raised_after_its_frames(
    upscaler: Upscaler, live: bool
) -> None:
    def broken() -> Iterator[NDArray[np.uint8]]:
        yield photo(16, 16)
        raise ConnectionError("gone")

    results: list[Any] = []
    with pytest.raises(ConnectionError, match="gone"):
        results.extend(iter(upscaler.stream(broken(), live=live)))


def test_a_frame_that_is_none_is_refused(upscaler: Upscaler) -> None:
    stream = upscaler.stream([photo(16, 16), np.zeros((3, 3), np.uint8), photo(16, 16)])
    next(stream)
    with pytest.raises(InputError, match="grey"):
        next(stream)
    assert next(stream).image.shape == (64, 64, 3)


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the system does not tell")
def test_memory_is_flat_over_a_thousand_frames(upscaler: Upscaler) -> None:
    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    pictures = [photo(24, 40, seed) for seed in range(7)]
    stream = upscaler.stream(pictures[number % 7] for number in range(1000))
    for _ in range(300):  # enough for every buffer, and for the times that are kept
        next(stream)
    before = pages()
    assert sum(1 for _ in stream) == 700
    # Each result is 46 kB.
    assert (pages() - before) * 4096 < 4 * 2**20
