"""A single thread that runs the model, one request at a time; the event loop only submits work and receives results."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

WAITING = 64
"""Largest number of waiting requests; further ones are refused."""


class Busy(Exception):
    """Too many requests are waiting."""


class WorkerStopped(Exception):
    """The worker was closed before this request finished."""


class Ticket(Generic[T]):
    """One request in the queue. Iterate over it for the items that the work yields; `cancel` it when they are no longer needed."""

    def __init__(self, work: Callable[[], Iterator[T]]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._out: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop before the next step (or never start)."""
        self._cancelled.set()

    async def __aiter__(self) -> AsyncIterator[T]:
        try:
            while True:
                kind, value = await self._out.get()
                if kind == "item":
                    yield value
                elif kind == "error":
                    raise value
                else:
                    return
        finally:
            self.cancel()

    def refuse(self) -> None:
        """Cancel, and raise WorkerStopped for a consumer that still waits."""
        self.cancel()
        self._send("error", WorkerStopped())

    def run(self) -> None:
        """In the worker's thread: do the work and send the items that it yields."""
        try:
            if not self._cancelled.is_set():
                for item in self._work():
                    if self._cancelled.is_set():
                        break
                    self._send("item", item)
                else:
                    self._send("end", None)
                    return
            self.refuse()
        except Exception as e:  # an error ends its request, never the worker
            self._send("error", e)

    def _send(self, kind: str, value: object) -> None:
        try:
            self._loop.call_soon_threadsafe(self._out.put_nowait, (kind, value))
        except RuntimeError:  # the event loop is closed, and with it the consumer
            self._cancelled.set()


class Worker:
    """The queue of requests and the thread that processes it."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._queue: queue.Queue[Ticket[Any] | None] = queue.Queue(waiting)
        self._now: Ticket[Any] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="onebase-model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    @property
    def running(self) -> int:
        """Requests being served now: 0 or 1."""
        return int(self._now is not None)

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def submit(self, work: Callable[[], Iterator[T]]) -> Ticket[T]:
        """Add to the queue; `work` is called in the worker's thread. Raises Busy when the queue is full or closed."""
        if not self.alive:
            raise Busy
        ticket = Ticket(work)
        try:
            self._queue.put_nowait(ticket)
        except queue.Full:
            raise Busy from None
        return ticket

    def close(self, timeout: float = 5.0) -> None:
        """Cancel the running request after its step, drop the others and wait for the thread."""
        self._closed = True
        if (now := self._now) is not None:
            now.cancel()
        try:
            while True:
                left = self._queue.get_nowait()
                if left is not None:
                    left.refuse()
        except queue.Empty:
            self._queue.put(None)
        self._thread.join(timeout)

    def _serve(self) -> None:
        while (ticket := self._queue.get()) is not None:
            self._now = ticket
            if self._closed:
                ticket.cancel()
            ticket.run()
            self._now = ticket = None  # the cache of a request must not outlive it
