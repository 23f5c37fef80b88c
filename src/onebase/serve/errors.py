"""Parses requests and formats errors: every error has OpenAI's format, and none reveals details of this machine."""

import json
import logging
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from onebase.engine.request import PromptTooLong
from onebase.errors import UserError
from onebase.serve.schema import RequestError, explain
from onebase.serve.worker import Busy, WorkerStopped

BODY = 2 << 20
"""Largest request body, in bytes."""
_log = logging.getLogger("onebase.serve")
R = TypeVar("R", bound=BaseModel)


async def read_request(request: Request, shape: type[R]) -> R:
    """The request's body as `shape`. Raises RequestError that explains what is wrong with it."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY:
            raise RequestError(413, f"the request is larger than {BODY >> 20} MB", "send a smaller request")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not valid JSON", 'send JSON like {"model": ..., ...}') from None
    try:
        return shape.model_validate(data)
    except ValidationError as e:
        text, param = explain(e)
        raise RequestError(400, text, param=param) from None


def _error(
    status: int, message: str, code: str | None = None, param: str | None = None, **headers: str
) -> JSONResponse:
    kind = {404: "not_found_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
    kind = "server_error" if status >= 500 else kind
    clean = message.encode("utf-8", "replace").decode()  # a lone surrogate of the request breaks JSON
    body = {"error": {"message": clean, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, {k.replace("_", "-"): v for k, v in headers.items()})


def answer_error(e: Exception) -> JSONResponse:
    """The response to an error. Details of errors that the client did not cause are only logged."""
    if isinstance(e, RequestError):
        return _error(e.status, _line(e), e.code, e.param)
    if isinstance(e, PromptTooLong):
        return _error(400, _line(e), "context_length_exceeded")
    if isinstance(e, UserError):
        return _error(400, _line(e))
    if isinstance(e, Busy):
        return _error(429, "too many requests are waiting; try again later", "overloaded", Retry_After="2")
    if isinstance(e, WorkerStopped):
        return _error(503, "the server is stopping", "stopping")
    _log.error("a request failed", exc_info=e)
    return _error(500, "internal server error; see the server's log")


def _line(e: UserError) -> str:
    return f"{e.cause}; {e.remedy}" if e.remedy else e.cause


async def on_error(request: Request, e: Exception) -> Response:
    return answer_error(e)


async def on_http(request: Request, e: Exception) -> Response:
    assert isinstance(e, HTTPException)
    message = {404: "path not found", 405: "method not allowed"}.get(e.status_code, e.detail)
    return _error(e.status_code, f"{message}: {request.method} {request.url.path[:80]}")


async def on_disconnect(request: Request, e: Exception) -> Response:
    return Response(status_code=499)  # the client disconnected while sending
