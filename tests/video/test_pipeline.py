from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from ikc_deploy.runtime.bounded_queue import BoundedQueue
from ikc_deploy.video.pipeline import CAPACITY, run


class BrokenError(Exception):
    pass


def counting(until: int, ended: list[bool] | None = None) -> Generator[int, None, None]:
    try:
        yield from range(until)
    finally:
        if ended is not None:
            ended.append(True)


def breaking(at: int, value: int) -> int:
    if value == at:
        raise BrokenError(value)
    return value


def test_everything_arrives_in_order() -> None:
    written: list[int] = []
    dropped = run(counting(100), lambda n: 2 * n, written.append, threading.Event())
    assert written == list(range(0, 200, 2))
    assert dropped == 0


def test_reading_waits_for_slow_work() -> None:
    read, worked = [0], [0]
    ahead: list[int] = []

    def source() -> Generator[int, None, None]:
        for number in range(50):
            read[0] += 1
            yield number

    def work(number: int) -> int:
        ahead.append(read[0] - worked[0])
        worked[0] += 1
        return number

    run(source(), work, lambda _: None, threading.Event())
    assert max(ahead) <= CAPACITY + 2


@pytest.mark.parametrize("stage", ["read", "work", "write"])
def test_an_error_in_any_stage_ends_all_and_is_raised(stage: str) -> None:
    threads = threading.active_count()
    ended: list[bool] = []
    written: list[int] = []

    def source() -> Generator[int, None, None]:
        for number in counting(10**9, ended):
            yield breaking(5 if stage == "read" else -1, number)

    def write(number: int) -> None:
        written.append(breaking(5 if stage == "write" else -1, number))

    with pytest.raises(BrokenError, match="5"):
        run(
            source(),
            lambda number: breaking(5 if stage == "work" else -1, number),
            write,
            threading.Event(),
        )
    assert written == list(range(5))
    assert threading.active_count() == threads


def test_a_stop_writes_what_was_worked_on_and_ends_the_source() -> None:
    stop, ended = threading.Event(), list[bool]()
    written: list[int] = []

    def work(number: int) -> int:
        if number == 7:
            stop.set()
        return number

    run(counting(10**9, ended), work, written.append, stop)
    assert written == list(range(8))
    assert ended == [True]


def test_a_stop_does_not_wait_for_a_source_that_is_silent() -> None:
    stop, written = threading.Event(), list[int]()

    def source() -> Generator[int, None, None]:
        yield 1
        stop.wait()

    timer = threading.Timer(0.05, stop.set)
    timer.start()
    run(source(), lambda n: n, written.append, stop)
    assert written == [1]


def test_live_frames_that_nobody_waited_for_are_counted_not_queued() -> None:
    released, written = threading.Event(), list[int]()

    def source() -> Generator[int, None, None]:
        yield from range(100)
        released.set()

    def work(number: int) -> int:
        released.wait()
        return number

    dropped = run(source(), work, written.append, threading.Event(), newest_wins=True)
    assert written[-1] == 99
    assert dropped == 100 - len(written) >= 97


def test_a_cancelled_channel_takes_nothing() -> None:
    channel = BoundedQueue[int](2)
    assert channel.put(1)
    channel.cancel()
    assert not channel.put(2)
    assert list(channel.items()) == []
