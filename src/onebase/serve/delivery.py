"""Sends results of the worker to the client, whole or as server-sent events, and cancels the work of clients that disconnect."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from onebase.engine.request import Piece
from onebase.serve.answer import Reply
from onebase.serve.errors import answer_error
from onebase.serve.worker import Ticket


async def unless_gone(request: Request, ticket: Ticket[Any]) -> Any:
    """The last item that the work yields. If the client disconnects first, the work is cancelled and the result is None."""

    async def last() -> Any:
        result = None
        async for item in ticket:
            result = item
        return result

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    work, watch = asyncio.create_task(last()), asyncio.create_task(gone())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        ticket.cancel()
        work.cancel()
        watch.cancel()


class EventStream(StreamingResponse):
    """Server-sent events; the work is cancelled when the response ends for any reason."""

    def __init__(self, body: AsyncIterator[bytes], ticket: Ticket[Any]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(body, media_type="text/event-stream", headers=headers)
        self._ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.cancel()


async def events(
    ticket: Ticket[list[Piece]], answer: Reply, logprobs: bool, usage: bool
) -> AsyncIterator[bytes]:
    """The events of one response."""
    try:
        if answer.kind == "chat":
            yield _event(answer.opening())
        async for pieces in ticket:
            for piece in pieces:
                answer.completion_tokens += len(piece.ids)
                if piece.text or piece.finish or logprobs:
                    yield _event(answer.chunk(piece, logprobs))
        if usage:
            yield _event(answer.closing())
        yield b"data: [DONE]\n\n"
    except Exception as e:  # the status line was sent already: the error is an event
        yield _event(json.loads(bytes(answer_error(e).body)))


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"
