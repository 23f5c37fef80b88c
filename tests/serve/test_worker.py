"""The line of requests: one at a time, refused when full, stopped when nobody listens."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from onebase.serve.worker import Busy, Ticket, Worker, WorkerStopped


async def collect(ticket: Ticket[int]) -> list[int]:
    return [x async for x in ticket]


def test_requests_are_served_in_order_one_at_a_time() -> None:
    inside, most = 0, 0

    def work(n: int) -> Iterator[int]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        yield from range(n)
        inside -= 1

    async def main() -> list[list[int]]:
        worker = Worker()
        tickets = [worker.submit(lambda n=n: work(n)) for n in (3, 0, 5)]  # type: ignore[misc]
        found = await asyncio.gather(*map(collect, tickets))
        worker.close()
        return list(found)

    assert asyncio.run(main()) == [[0, 1, 2], [], [0, 1, 2, 3, 4]]
    assert most == 1


def test_a_full_line_refuses_and_a_failure_is_the_requests_own() -> None:
    gate = threading.Event()

    def wait() -> Iterator[int]:
        gate.wait(5)
        yield 1

    def fail() -> Iterator[int]:
        raise ValueError("no")

    async def main() -> None:
        worker = Worker(waiting=2)
        first = worker.submit(wait)
        while not worker.running:
            await asyncio.sleep(0.001)
        second, third = worker.submit(fail), worker.submit(wait)
        with pytest.raises(Busy):
            worker.submit(wait)
        gate.set()
        assert await collect(first) == [1]
        with pytest.raises(ValueError, match="no"):
            await collect(second)
        assert await collect(third) == [1]
        worker.close()
        assert not worker.alive
        with pytest.raises(Busy):
            worker.submit(wait)

    asyncio.run(main())


def test_a_cancelled_request_stops_at_its_next_step_and_one_that_waits_never_starts() -> None:
    steps: list[int] = []
    started: list[str] = []

    def endless() -> Iterator[int]:
        while True:
            steps.append(1)
            yield 1

    def other() -> Iterator[int]:
        started.append("other")
        yield 2

    async def main() -> None:
        worker = Worker()
        ticket, waiting, last = worker.submit(endless), worker.submit(other), worker.submit(lambda: iter([7]))
        waiting.cancel()
        async for _ in ticket:
            break
        ticket.cancel()
        assert await collect(last) == [7]
        n = len(steps)
        await asyncio.sleep(0.02)
        assert len(steps) == n
        worker.close()

    asyncio.run(main())
    assert not started


def test_closing_tells_those_who_wait() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    async def main() -> None:
        worker = Worker()
        running, waiting = worker.submit(endless), worker.submit(endless)
        while not worker.running:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(worker.close)
        for ticket in (running, waiting):
            with pytest.raises(WorkerStopped):
                await collect(ticket)

    asyncio.run(main())
