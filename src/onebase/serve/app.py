"""The HTTP API: OpenAI's chat and completions, and a path per task, for one base and its adapters."""

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
"""Applies a saved prompt: (text or messages, variables of the request) to the input of the model."""


def create_app(
    base: LoadedBase,
    name: str,
    adapters: Mapping[str, AdapterRouting | None] | None = None,
    tasks: Mapping[str, TaskModel] | None = None,
    prompts: Mapping[str, Saved] | None = None,
) -> Starlette:
    """An ASGI app that serves `base` as the model `name`, and each attached adapter as a model of its own name.

    adapters: those that generate text. tasks: those served at the paths of their tasks (the head of the base's own checkpoint has the base's
    name). prompts: saved prompts, by the names of adapters. Raises UserError for an invalid or duplicate name, and for a task whose path is taken.
    """
    adapters, tasks = dict(adapters or {}), dict(tasks or {})
    names = (name, *adapters, *(n for n in tasks if n != name))
    for known in names:
        if not _NAME.fullmatch(known):
            raise UserError(
                f"{known!r} is not a valid model name",
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
    fixed = {r.path for r in routes}
    for path in dict.fromkeys(
        [*(t.path for t in TASKS.values() if t.answer), *(m.path for m in tasks.values())]
    ):
        if path in fixed or not _PATH.fullmatch(path):
            raise UserError(
                f"a task cannot be served at {path}",
                "give the Task another `route` of lower-case letters, digits, '_' and '-', which the server does not use itself",
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
        if self._worker is None:  # an app without its lifespan events
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
        status = {"status": "ok" if w.alive else "stopped", "running": w.running, "waiting": w.waiting}
        return JSONResponse(status, 200 if w.alive else 503)

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
            raise RequestError(400, f"the model {name!r} is served at {other}", known_here, param="model")
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
        body = await read_request(request, TaskRequest)
        here = {n: m for n, m in self.tasks.items() if m.path == request.url.path}
        model = self._find(body.model, here, " here")
        items = inputs(body, model)
        answers = await unless_gone(request, self.worker.submit(lambda: iter([model.answer(items)])))
        if answers is None:
            return Response(status_code=499)  # the client has disconnected
        return JSONResponse(answered(body, model, self.fingerprint, answers))

    async def chat(self, request: Request) -> Response:
        body = await read_request(request, ChatRequest)
        routing = self._active(body.model)
        messages = await self._saved(request, body, [m.plain() for m in body.messages])
        if messages is None:
            return Response(status_code=499)  # the client has disconnected
        try:
            ids = await run_in_threadpool(self.base.codec.chat_ids, messages)
        except DataError as e:  # the template's errors name its file: local paths are not sent to clients
            cause = e.cause.replace(f"{self.base.path}/", "")
            raise RequestError(400, cause, e.remedy, param="messages") from None
        sampling = body.sampling(self.context)
        return await self._answer(request, "chat", body, [ids], sampling, routing)

    async def text(self, request: Request) -> Response:
        body = await read_request(request, TextRequest)
        routing = self._active(body.model)
        filled = [await self._saved(request, body, p) for p in body.prompts()]
        if None in filled:
            return Response(status_code=499)  # the client has disconnected
        prompts = await run_in_threadpool(lambda: [self._ids(p, body.suffix) for p in filled])
        return await self._answer(request, "text", body, prompts, body.sampling(), routing)

    async def _saved(self, request: Request, body: ChatRequest | TextRequest, prompt: Any) -> Any:
        """A text or messages with the model's saved prompt applied, if it has one; None when the client has disconnected."""
        work = self.prompts.get(body.model)
        if work is None:
            if body.variables:
                raise RequestError(
                    400, "this model has no saved prompt", "leave 'variables' out", param="variables"
                )
            return prompt
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            raise RequestError(400, "a saved prompt takes text, not token ids", "send text", param="prompt")
        # It may need embeddings from the base: only one thread runs the model.
        variables = body.variables or {}
        return await unless_gone(request, self.worker.submit(lambda: iter([work(prompt, variables)])))

    def _ids(self, prompt: str | list[int], suffix: str | None = None) -> list[int]:
        if suffix and isinstance(prompt, str):
            return infill_ids(self.base, prompt, suffix)
        return self.base.codec.tokenizer.encode(prompt, bos=True) if isinstance(prompt, str) else prompt

    async def _answer(
        self,
        request: Request,
        kind: Kind,
        body: ChatRequest | TextRequest,
        prompts: list[list[int]],
        sampling: Sampling,
        routing: AdapterRouting | None,
    ) -> Response:
        check_prompts(self.base, prompts, room=min(1, sampling.max_tokens), routing=routing)
        if sampling.constraint is not None:  # an invalid constraint is reported before a stream begins
            await run_in_threadpool(guides, self.base.codec, [sampling.constraint])
        answer = Reply(kind, body.model, self.fingerprint, self.base.codec.tokenizer, sum(map(len, prompts)))
        logprobs = sampling.logprobs is not None
        echo = isinstance(body, TextRequest) and bool(body.echo)
        if body.stream:
            if echo:
                raise RequestError(
                    400, "'echo' cannot be streamed", "leave out one of 'echo' and 'stream'", param="echo"
                )
            ticket = self.worker.submit(lambda: stream(self.base, prompts, sampling, routing))
            return EventStream(events(ticket, answer, logprobs, body.wants_usage), ticket)
        done = await unless_gone(
            request, self.worker.submit(lambda: self._complete(prompts, sampling, routing, echo))
        )
        if done is None:
            return Response(status_code=499)  # the client has disconnected
        whole, counts = done
        answer.completion_tokens = counts
        return JSONResponse(answer.whole(whole, logprobs))

    def _complete(
        self, prompts: list[list[int]], sampling: Sampling, routing: AdapterRouting | None, echo: bool
    ) -> Iterator[tuple[list[Completion], int] | None]:
        """Yields None after every step, so that a cancelled request ends there, and the whole completions last."""
        parts: list[list[Piece]] = [[] for _ in prompts]
        if sampling.max_tokens:
            for pieces in stream(self.base, prompts, sampling, routing):
                for piece in pieces:
                    parts[piece.row].append(piece)
                yield None
        prompt_logprobs = [score(self.base, [p], routing)[0].tolist() if echo else [] for p in prompts]
        out = []
        for prompt, scores, pieces in zip(prompts, prompt_logprobs, parts, strict=True):
            c = _joined(pieces)
            if echo:
                out.append(self._echoed(prompt, scores, c, sampling))
            else:
                out.append(c)
        yield out, sum(len(p.ids) for pieces in parts for p in pieces)

    def _echoed(
        self, prompt: list[int], scores: list[float], c: Completion, sampling: Sampling
    ) -> Completion:
        """The completion with its prompt in front. The first token of the prompt has no log-probability."""
        text = self.base.codec.tokenizer.decode(prompt) + c.text
        ids = (*prompt, *c.ids)
        if sampling.logprobs is None:
            return Completion(text, ids, c.finish)
        tops: tuple[Any, ...] = (*(None for _ in prompt), *c.top) if c.top else ()
        logprobs: tuple[Any, ...] = (None, *scores, *c.logprobs)
        return Completion(text, ids, c.finish, logprobs, len(prompt), tops)


def _joined(pieces: list[Piece]) -> Completion:
    return Completion(
        "".join(p.text for p in pieces),
        tuple(i for p in pieces for i in p.ids),
        (pieces[-1].finish if pieces else None) or "length",
        tuple(x for p in pieces for x in p.logprobs),
        top=tuple(t for p in pieces for t in p.top),
    )
