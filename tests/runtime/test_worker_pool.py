from __future__ import annotations

import threading
import time

import pytest

from ikc_deploy import InputError
from ikc_deploy.runtime.worker_pool import WorkerPool


def test_workers_take_turns_and_each_keeps_its_order() -> None:
    pool: WorkerPool[list[int], int] = WorkerPool([[], []], bound=4)
    workers: list[list[int]] = []

    def job(number: int, worker: list[int]) -> int:
        worker.append(number)
        if worker not in workers:
            workers.append(worker)
        return 10 * number

    tickets = [pool.submit(lambda worker, n=n: job(n, worker)) for n in range(10)]  # type: ignore[misc]
    assert [ticket.result(10) for ticket in tickets] == [10 * n for n in range(10)]
    pool.close()
    assert sorted(workers) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_each_worker_is_used_by_one_thread() -> None:
    pool: WorkerPool[str, tuple[str, int]] = WorkerPool(["a", "b", "c"], bound=6)
    tickets = [pool.submit(lambda worker: (worker, threading.get_ident())) for _ in range(12)]
    seen = {ticket.result(10) for ticket in tickets}
    pool.close()
    assert len(seen) == 3


def test_the_bound_holds_the_caller_back() -> None:
    go = threading.Event()
    pool: WorkerPool[None, bool] = WorkerPool([None], bound=2)
    submitted = []

    def feed() -> None:
        for number in range(4):
            pool.submit(lambda _: go.wait(10))
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


def test_a_ticket_raises_what_its_job_raised_and_the_place_is_free_again() -> None:
    pool: WorkerPool[None, float] = WorkerPool([None], bound=1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda _: 1 / 0).result(10)
    assert pool.submit(lambda _: 1.0).result(10) == 1.0
    pool.close()


def test_a_result_that_is_late_can_be_asked_for_again() -> None:
    go = threading.Event()
    pool: WorkerPool[None, bool] = WorkerPool([None], bound=1)
    ticket = pool.submit(lambda _: go.wait(10))
    with pytest.raises(TimeoutError):
        ticket.result(0.01)
    assert not ticket.done()
    go.set()
    assert ticket.result(10)
    assert ticket.done()
    pool.close()


def test_closing_finishes_what_has_begun_and_lets_go_of_who_waits() -> None:
    go, began = threading.Event(), threading.Event()
    pool: WorkerPool[None, bool] = WorkerPool([None], bound=2)

    def job(_: None) -> bool:
        began.set()
        return go.wait(10)

    first, second = pool.submit(job), pool.submit(job)
    refused = []

    def wait_for_a_place() -> None:
        with pytest.raises(InputError, match="closed") as raised:
            pool.submit(job)
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
