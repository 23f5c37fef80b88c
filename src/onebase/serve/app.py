"""The HTTP API: OpenAI's chat and completions over one base and its adapters."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from onebase.base.folder import LoadedBase
from onebase.errors import DataError, UserError
from onebase.generate.engine import stream
from onebase.generate.request import Completion, Piece, check_prompts
from onebase.generate.sampler import Sampling
from onebase.generate.score import score
from onebase.model.proj import Active
from onebase.serve.answer import Answer, Kind
from onebase.serve.errors import answer_error, on_error, on_http, on_leave, read_request
from onebase.serve.schema import ChatRequest, RequestError, TextRequest
from onebase.serve.worker import Busy, Stopped, Ticket, Worker

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def create_app(base: LoadedBase, name: str, adapters: Mapping[str, Active | None] | None = None) -> Starlette:
    """An ASGI app that serves `base` as the model `name`, and each attached adapter as a model of its own name.

    Raises UserError for a name that is no plain word, or that stands for two things.
    """
    adapters = dict(adapters or {})
    for known in (name, *adapters):
        if not _NAME.fullmatch(known):
            raise UserError(
                f"{known!r} cannot be a model's name", "use letters, digits, '.', '_' and '-', at most 64"
            )
    if name in adapters:
        raise UserError(
            f"base and adapter are both called {name!r}", "give the adapter another NAME in NAME=DIR"
        )
    server = _Server(base, name, adapters)
    routes = [
        Route("/health", server.health),
        Route("/v1/models", server.models),
        Route("/v1/models/{name}", server.model),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/completions", server.text, methods=["POST"]),
    ]
    handlers: Any = {
        UserError: on_error,
        Busy: on_error,
        Stopped: on_error,
        HTTPException: on_http,
        ClientDisconnect: on_leave,
        Exception: on_error,
    }
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=server.lifespan)


class _Server:
    def __init__(self, base: LoadedBase, name: str, adapters: dict[str, Active | None]) -> None:
        self.base, self.name = base, name
        self.known: dict[str, Active | None] = {name: None, **adapters}
        self.fingerprint = base.fingerprint
        self.context = base.model.cfg.text.context
        self.created = Answer("text", name, "", base.codec.tokenizer).created
        self._worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        if self._worker is None:  # an app that is used without its lifespan
            self._worker = Worker()
        return self._worker

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._worker = Worker()
        try:
            yield
        finally:
            await run_in_threadpool(self._worker.close)

    async def health(self, request: Request) -> Response:
        w = self.worker
        found = {"status": "ok" if w.alive else "stopped", "running": w.running, "waiting": w.waiting}
        return JSONResponse(found, 200 if w.alive else 503)

    def _card(self, name: str) -> dict[str, Any]:
        about = {"id": name, "object": "model", "created": self.created, "owned_by": "onebase"}
        parent = None if name == self.name else self.name
        return about | {"parent": parent, "fingerprint": self.fingerprint, "max_model_len": self.context}

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card(n) for n in self.known]})

    async def model(self, request: Request) -> Response:
        self._active(request.path_params["name"])
        return JSONResponse(self._card(request.path_params["name"]))

    def _active(self, name: str) -> Active | None:
        if name not in self.known:
            known = ", ".join(self.known)
            raise RequestError(
                404,
                f"the model {name[:80]!r} does not exist",
                f"known: {known}",
                code="model_not_found",
                param="model",
            )
        return self.known[name]

    async def chat(self, request: Request) -> Response:
        asked = await read_request(request, ChatRequest)
        active = self._active(asked.model)
        messages = [m.plain() for m in asked.messages]
        try:
            ids = await run_in_threadpool(self.base.codec.chat_ids, messages)
        except DataError as e:  # the template's errors name its file, which is nobody's business
            cause = e.cause.replace(f"{self.base.path}/", "")
            raise RequestError(400, cause, e.remedy, param="messages") from None
        sampling = asked.sampling(self.context)
        return await self._answer(request, "chat", asked, [ids], sampling, active)

    async def text(self, request: Request) -> Response:
        asked = await read_request(request, TextRequest)
        active = self._active(asked.model)
        prompts = await run_in_threadpool(lambda: [self._ids(p) for p in asked.prompts()])
        return await self._answer(request, "text", asked, prompts, asked.sampling(), active)

    def _ids(self, prompt: str | list[int]) -> list[int]:
        return self.base.codec.tokenizer.encode(prompt, bos=True) if isinstance(prompt, str) else prompt

    async def _answer(
        self,
        request: Request,
        kind: Kind,
        asked: ChatRequest | TextRequest,
        prompts: list[list[int]],
        sampling: Sampling,
        active: Active | None,
    ) -> Response:
        check_prompts(self.base, prompts, room=min(1, sampling.max_tokens))
        answer = Answer(
            kind, asked.model, self.fingerprint, self.base.codec.tokenizer, sum(map(len, prompts))
        )
        logprobs = sampling.logprobs is not None
        echo = isinstance(asked, TextRequest) and bool(asked.echo)
        if asked.stream:
            if echo:
                raise RequestError(
                    400, "echo does not stream", "leave out one of 'echo' and 'stream'", param="echo"
                )
            ticket = self.worker.submit(lambda: stream(self.base, prompts, sampling, active))
            body = _events(ticket, answer, logprobs, asked.wants_usage)
            return _Stream(body, ticket)
        done = await _unless_gone(
            request, self.worker.submit(lambda: self._complete(prompts, sampling, active, echo))
        )
        if done is None:
            return Response(status_code=499)  # nobody reads it
        whole, counts = done
        answer.completion_tokens = counts
        return JSONResponse(answer.whole(whole, logprobs))

    def _complete(
        self, prompts: list[list[int]], sampling: Sampling, active: Active | None, echo: bool
    ) -> Iterator[tuple[list[Completion], int] | None]:
        """Whole answers as the last thing yielded; None after every step, so that a cancelled request ends there."""
        parts: list[list[Piece]] = [[] for _ in prompts]
        if sampling.max_tokens:
            for pieces in stream(self.base, prompts, sampling, active):
                for piece in pieces:
                    parts[piece.row].append(piece)
                yield None
        said = [score(self.base, [p], active)[0].tolist() if echo else [] for p in prompts]
        out = []
        for prompt, given, pieces in zip(prompts, said, parts, strict=True):
            c = _joined(pieces)
            if echo:
                out.append(self._echoed(prompt, given, c, sampling))
            else:
                out.append(c)
        yield out, sum(len(p.ids) for pieces in parts for p in pieces)

    def _echoed(self, prompt: list[int], given: list[float], c: Completion, sampling: Sampling) -> Completion:
        """The prompt before the answer; its first token, which nothing precedes, has no log-probability."""
        text = self.base.codec.tokenizer.decode(prompt) + c.text
        ids = (*prompt, *c.ids)
        if sampling.logprobs is None:
            return Completion(text, ids, c.finish)
        tops: tuple[Any, ...] = (*(None for _ in prompt), *c.top) if c.top else ()
        logprobs: tuple[Any, ...] = (None, *given, *c.logprobs)
        return Completion(text, ids, c.finish, logprobs, len(prompt), tops)


def _joined(pieces: list[Piece]) -> Completion:
    return Completion(
        "".join(p.text for p in pieces),
        tuple(i for p in pieces for i in p.ids),
        (pieces[-1].finish if pieces else None) or "length",
        tuple(x for p in pieces for x in p.logprobs),
        top=tuple(t for p in pieces for t in p.top),
    )


async def _unless_gone(request: Request, ticket: Ticket[Any]) -> Any:
    """The last thing that the work yields; None, and no more work, when the client leaves first."""

    async def last() -> Any:
        found = None
        async for item in ticket:
            found = item
        return found

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


class _Stream(StreamingResponse):
    """Server-sent events; when the response ends, however it ends, so does the work."""

    def __init__(self, body: AsyncIterator[bytes], ticket: Ticket[Any]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(body, media_type="text/event-stream", headers=headers)
        self._ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.cancel()


async def _events(
    ticket: Ticket[list[Piece]], answer: Answer, logprobs: bool, usage: bool
) -> AsyncIterator[bytes]:
    """The events of one answer."""
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
    except Exception as e:  # the status line is gone already: the error is an event
        yield _event(json.loads(bytes(answer_error(e).body)))


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"
