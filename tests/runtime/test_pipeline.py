from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator

import pytest

from ikc_deploy import InputError
from ikc_deploy.runtime.bounded_queue import BoundedQueue
from ikc_deploy.runtime.pipeline import CAPACITY, Pipeline, ResultFuture, RunSettings


class BrokenError(Exception):
    pass


def test_workers_take_turns_and_each_keeps_its_order() -> None:
    taken: list[list[int]] = [[], []]

    def worker(numbers: list[int]) -> Callable[[int], int]:
        def work(number: int) -> int:
            numbers.append(number)
            return 10 * number

        return work

    with Pipeline([worker(numbers) for numbers in taken], bound=4) as pipeline:
        futures = [pipeline.submit(n) for n in range(10)]
        assert [future.result(10) for future in futures] == [10 * n for n in range(10)]
    assert taken == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_each_worker_is_used_by_one_thread() -> None:
    def worker(name: str) -> Callable[[int], tuple[str, int]]:
        return lambda _: (name, threading.get_ident())

    with Pipeline([worker(name) for name in "abc"], bound=6) as pipeline:
        futures = [pipeline.submit(n) for n in range(12)]
        seen = {future.result(10) for future in futures}
    assert len(seen) == 3


def test_the_bound_holds_the_caller_back() -> None:
    go = threading.Event()
    pool = Pipeline([lambda _: go.wait(10)], bound=2)
    submitted = []

    def feed() -> None:
        for number in range(4):
            pool.submit(number)
            submitted.append(number)

    feeder = threading.Thread(target=feed)
    feeder.start()
    deadline = time.monotonic() + 10
    while len(submitted) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert submitted == [0, 1]
    go.set()
    feeder.join(10)
    assert submitted == [0, 1, 2, 3]
    pool.close()


def test_a_future_raises_the_error_of_its_item_and_the_next_item_is_taken() -> None:
    with Pipeline([lambda n: 1 / n], bound=1) as pipeline:
        with pytest.raises(ZeroDivisionError):
            pipeline.submit(0).result(10)
        assert pipeline.submit(1).result(10) == 1.0


def test_a_result_that_is_late_can_be_asked_for_again() -> None:
    go = threading.Event()
    pool = Pipeline([lambda _: go.wait(10)], bound=1)
    ticket = ResultFuture(pool.submit(0))
    with pytest.raises(TimeoutError):
        ticket.result(0.01)
    assert not ticket.done()
    go.set()
    assert ticket.result(10)
    assert ticket.done()
    pool.close()


def test_closing_finishes_what_has_begun_and_lets_go_of_who_waits() -> None:
    go, began = threading.Event(), threading.Event()

    def work(_: int) -> bool:
        began.set()
        return go.wait(10)

    pool = Pipeline([work], bound=2)
    first, second = (ResultFuture(pool.submit(n)) for n in range(2))
    refused = []

    def wait_for_a_place() -> None:
        with pytest.raises(InputError, match="closed") as raised:
            pool.submit(2)
        refused.append(raised.value)

    waiting = threading.Thread(target=wait_for_a_place)
    waiting.start()
    began.wait(10)
    threading.Timer(0.05, go.set).start()
    pool.close()
    waiting.join(10)
    assert first.result(10)
    with pytest.raises(InputError, match="closed before"):
        second.result(10)
    assert len(refused) == 1


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


def run(
    items: Generator[int, None, None],
    work: Callable[[int], int],
    write: Callable[[int], None],
    stop: threading.Event,
    newest: bool = False,
    workers: int = 1,
) -> int:
    """Read in a thread, work in others, write in this one, as for a clip."""
    with Pipeline([work] * workers, CAPACITY) as pipeline:
        results = pipeline.run(
            items, int, RunSettings("newest" if newest else "ahead", CAPACITY, stop)
        )
        try:
            for result in results:
                write(result)
        finally:
            results.close()
    return results.dropped


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_everything_arrives_in_order(workers: int) -> None:
    written: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return 2 * number

    dropped = run(counting(100), work, written.append, threading.Event(), workers=workers)
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

    def write(number: int) -> None:
        written.append(number)
        threading.Timer(0.05, stop.set).start()

    run(source(), lambda n: n, write, stop)
    assert written == [1]


@pytest.mark.parametrize("workers", [1, 2])
def test_closing_a_run_waits_for_what_has_begun_and_drops_the_rest(workers: int) -> None:
    """The pipeline stays usable, and every item that was prepared is accounted for."""
    go, begun, ended = threading.Event(), list[int](), list[int]()
    done = list[int]()

    def work(number: int) -> int:
        begun.append(number)
        if number > 0:
            go.wait(10)
        ended.append(number)
        return number

    with Pipeline([work] * workers, 2 * workers) as pipeline:
        with pipeline.run(range(100), int, RunSettings("ahead", 3), done.append) as results:
            assert next(results) == 0
            threading.Timer(0.05, go.set).start()
        # Whatever was begun has ended, and nothing begins later.
        assert sorted(begun) == sorted(ended)
        assert len(begun) < 10
        assert sorted(done) == list(range(len(done))) and set(begun) <= set(done)
        with pytest.raises(StopIteration):
            next(results)
        count = len(begun)
        assert list(pipeline.run([0], int)) == [0]
        assert len(begun) == count + 1


def test_live_frames_that_nobody_waited_for_are_counted_not_queued() -> None:
    released, written = threading.Event(), list[int]()

    def source() -> Generator[int, None, None]:
        yield from range(100)
        released.set()

    def work(number: int) -> int:
        released.wait()
        return number

    dropped = run(source(), work, written.append, threading.Event(), newest=True)
    assert written[-1] == 99
    assert dropped == 100 - len(written) >= 97


def test_on_request_nothing_is_read_before_its_result_is_asked_for() -> None:
    read: list[int] = []

    def source() -> Generator[int, None, None]:
        for number in range(9):
            read.append(number)
            yield number

    for workers in (1, 2):
        read.clear()
        with Pipeline([float] * workers, 9) as pipeline:
            results = pipeline.run(source(), int)
            for number in range(3):
                assert next(results) == number
                # One for each worker, so that one reads while another works.
                assert len(read) == number + workers


def test_an_error_is_raised_in_its_place_and_the_run_goes_on() -> None:
    with Pipeline([lambda n: 6 // n] * 2, 4) as pipeline:
        results = pipeline.run([1, 0, 3], int)
        assert next(results) == 6
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == [2]


def test_a_cancelled_channel_takes_nothing() -> None:
    channel = BoundedQueue[int](2)
    assert channel.put(1)
    channel.cancel()
    assert not channel.put(2)
    assert list(channel.items()) == []
