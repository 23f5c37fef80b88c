"""The HTTP API: OpenAI's chat and completions, and a path for every task, over one base and its adapters."""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from onebase.base.folder import LoadedBase
from onebase.engine.constrain import guides
from onebase.engine.decoder import stream
from onebase.engine.infilling import infill_ids
from onebase.engine.request import Completion, Piece, check_prompts
from onebase.engine.sampler import Sampling
from onebase.engine.scoring import score
from onebase.errors import DataError, UserError
from onebase.model.proj import AdapterRouting
from onebase.serve.answer import Kind, Reply
from onebase.serve.delivery import EventStream, events, unless_gone
from onebase.serve.errors import on_disconnect, on_error, on_http, read_request
from onebase.serve.schema import ChatRequest, RequestError, TextRequest
from onebase.serve.tasks import TaskModel, TaskRequest, answered, inputs
from onebase.serve.worker import Busy, Worker, WorkerStopped
from onebase.tasks.table import TASKS

T = TypeVar("T")
_PATH = re.compile(r"/v1/[a-z0-9][a-z0-9_-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


Saved = Callable[[Any, Mapping[str, Any]], Any]
"""A text or messages, and the request's variables, to what a saved prompt makes of them."""


def create_app(
    base: LoadedBase,
    name: str,
    adapters: Mapping[str, AdapterRouting | None] | None = None,
    tasks: Mapping[str, TaskModel] | None = None,
    prompts: Mapping[str, Saved] | None = None,
) -> Starlette:
    """An ASGI app that serves `base` as the model `name`, and each attached adapter as a model of its own name.

    `adapters` write text, `tasks` answer at the paths of their tasks (one may have the base's own name: the head that it came with); `prompts` are the saved ones of adapters, by their names. Raises UserError for
    a name that is no plain word, or that stands for two things, and for a task whose path is taken.
    """
    adapters, tasks = dict(adapters or {}), dict(tasks or {})
    names = (name, *adapters, *(n for n in tasks if n != name))
    for known in names:
        if not _NAME.fullmatch(known):
            raise UserError(
                f"{known!r} cannot be a model's name",
                "use at most 64 letters, digits, '.', '_' and '-' (--name, or NAME in NAME=DIR)",
            )
        if names.count(known) > 1:
            raise UserError(f"two models are called {known!r}", "give the adapter another NAME in NAME=DIR")
    server = _Server(base, name, adapters, tasks, dict(prompts or {}))
    routes = [
        Route("/health", server.health),
        Route("/v1/models", server.models),
        Route("/v1/models/{name}", server.model),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/completions", server.text, methods=["POST"]),
    ]
    own = {r.path for r in routes}
    for path in dict.fromkeys(
        [*(t.path for t in TASKS.values() if t.answer), *(m.path for m in tasks.values())]
    ):
        if path in own or not _PATH.fullmatch(path):
            raise UserError(
                f"a task cannot answer at {path}",
                "give the Task another `route`: small letters, digits, '_' and '-', not of the server's own",
            )
        routes.append(Route(path, server.task, methods=["POST"]))
    handlers: Any = {
        UserError: on_error,
        Busy: on_error,
        WorkerStopped: on_error,
        HTTPException: on_http,
        ClientDisconnect: on_disconnect,
        Exception: on_error,
    }
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=server.lifespan)


class _Server:
    def __init__(
        self,
        base: LoadedBase,
        name: str,
        adapters: dict[str, AdapterRouting | None],
        tasks: dict[str, TaskModel],
        prompts: dict[str, Saved],
    ) -> None:
        self.base, self.name = base, name
        self.prompts = prompts
        self.speakers: dict[str, AdapterRouting | None] = {name: None, **adapters}
        self.tasks = tasks
        self.fingerprint = base.fingerprint
        self.context = base.model.cfg.text.context
        self.created = Reply("text", name, "", base.codec.tokenizer).created
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
        about |= {"parent": parent, "fingerprint": self.fingerprint, "max_model_len": self.context}
        if (model := self.tasks.get(name)) is None:
            return about
        return about | {"task": model.task, "path": model.path, "adapter_fingerprint": model.fingerprint}

    async def models(self, request: Request) -> Response:
        cards = [self._card(n) for n in {**self.speakers, **self.tasks}]
        return JSONResponse({"object": "list", "data": cards})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._find(name, {**self.speakers, **self.tasks}, "")
        return JSONResponse(self._card(name))

    def _find(self, name: str, known: Mapping[str, T], where: str) -> T:
        if name in known:
            return known[name]
        known_here = f"known{where}: {', '.join(known) or 'none'}"
        if name in self.speakers or name in self.tasks:
            other = (
                self.tasks[name].path if name in self.tasks else "/v1/completions and /v1/chat/completions"
            )
            raise RequestError(400, f"the model {name!r} answers at {other}", known_here, param="model")
        raise RequestError(
            404,
            f"the model {name[:80]!r} does not exist",
            known_here,
            code="model_not_found",
            param="model",
        )

    def _active(self, name: str) -> AdapterRouting | None:
        return self._find(name, self.speakers, "")

    async def task(self, request: Request) -> Response:
        asked = await read_request(request, TaskRequest)
        here = {n: m for n, m in self.tasks.items() if m.path == request.url.path}
        model = self._find(asked.model, here, " here")
        given = inputs(asked, model)
        found = await unless_gone(request, self.worker.submit(lambda: iter([model.answer(given)])))
        if found is None:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(answered(asked, model, self.fingerprint, found))

    async def chat(self, request: Request) -> Response:
        asked = await read_request(request, ChatRequest)
        routing = self._active(asked.model)
        messages = await self._saved(request, asked, [m.plain() for m in asked.messages])
        if messages is None:
            return Response(status_code=499)  # nobody reads it
        try:
            ids = await run_in_threadpool(self.base.codec.chat_ids, messages)
        except DataError as e:  # the template's errors name its file, which is nobody's business
            cause = e.cause.replace(f"{self.base.path}/", "")
            raise RequestError(400, cause, e.remedy, param="messages") from None
        sampling = asked.sampling(self.context)
        return await self._answer(request, "chat", asked, [ids], sampling, routing)

    async def text(self, request: Request) -> Response:
        asked = await read_request(request, TextRequest)
        routing = self._active(asked.model)
        given = [await self._saved(request, asked, p) for p in asked.prompts()]
        if None in given:
            return Response(status_code=499)  # nobody reads it
        prompts = await run_in_threadpool(lambda: [self._ids(p, asked.suffix) for p in given])
        return await self._answer(request, "text", asked, prompts, asked.sampling(), routing)

    async def _saved(self, request: Request, asked: ChatRequest | TextRequest, given: Any) -> Any:
        """What the model's saved prompt makes of a text or messages, if it has one; None when the client has left."""
        work = self.prompts.get(asked.model)
        if work is None:
            if asked.variables:
                raise RequestError(
                    400, "this model has no saved prompt", "leave 'variables' out", param="variables"
                )
            return given
        if isinstance(given, list) and given and isinstance(given[0], int):
            raise RequestError(400, "a saved prompt is put around a text", "send text", param="prompt")
        # It may ask the base for vectors: one thread runs the model.
        variables = asked.variables or {}
        return await unless_gone(request, self.worker.submit(lambda: iter([work(given, variables)])))

    def _ids(self, prompt: str | list[int], suffix: str | None = None) -> list[int]:
        if suffix and isinstance(prompt, str):
            return infill_ids(self.base, prompt, suffix)
        return self.base.codec.tokenizer.encode(prompt, bos=True) if isinstance(prompt, str) else prompt

    async def _answer(
        self,
        request: Request,
        kind: Kind,
        asked: ChatRequest | TextRequest,
        prompts: list[list[int]],
        sampling: Sampling,
        routing: AdapterRouting | None,
    ) -> Response:
        check_prompts(self.base, prompts, room=min(1, sampling.max_tokens), routing=routing)
        if sampling.constraint is not None:  # a form that cannot be followed is said before a stream begins
            await run_in_threadpool(guides, self.base.codec, [sampling.constraint])
        answer = Reply(kind, asked.model, self.fingerprint, self.base.codec.tokenizer, sum(map(len, prompts)))
        logprobs = sampling.logprobs is not None
        echo = isinstance(asked, TextRequest) and bool(asked.echo)
        if asked.stream:
            if echo:
                raise RequestError(
                    400, "echo does not stream", "leave out one of 'echo' and 'stream'", param="echo"
                )
            ticket = self.worker.submit(lambda: stream(self.base, prompts, sampling, routing))
            body = events(ticket, answer, logprobs, asked.wants_usage)
            return EventStream(body, ticket)
        done = await unless_gone(
            request, self.worker.submit(lambda: self._complete(prompts, sampling, routing, echo))
        )
        if done is None:
            return Response(status_code=499)  # nobody reads it
        whole, counts = done
        answer.completion_tokens = counts
        return JSONResponse(answer.whole(whole, logprobs))

    def _complete(
        self, prompts: list[list[int]], sampling: Sampling, routing: AdapterRouting | None, echo: bool
    ) -> Iterator[tuple[list[Completion], int] | None]:
        """Whole answers as the last thing yielded; None after every step, so that a cancelled request ends there."""
        parts: list[list[Piece]] = [[] for _ in prompts]
        if sampling.max_tokens:
            for pieces in stream(self.base, prompts, sampling, routing):
                for piece in pieces:
                    parts[piece.row].append(piece)
                yield None
        said = [score(self.base, [p], routing)[0].tolist() if echo else [] for p in prompts]
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
