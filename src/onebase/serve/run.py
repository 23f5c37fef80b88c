"""Runs the app with uvicorn: on loopback by default, with a clean shutdown on SIGTERM."""

import ipaddress
import signal
import socket
import sys
import threading
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from onebase.errors import UserError

DRAIN = 30
"""Seconds that running requests have to finish after SIGTERM or Ctrl-C."""


def serve(app: ASGIApp, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until SIGTERM or Ctrl-C, then let running requests finish. port 0: any free port; the URL is printed.

    Raises UserError when the address cannot be bound.
    """
    sock = _bind(host, port)
    shown = f"[{host}]" if ":" in host else host
    local = is_loopback(host)
    config = uvicorn.Config(
        OwnHostOnly(app, host) if local else app,
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=DRAIN,
        server_header=False,
    )
    server = uvicorn.Server(config)
    before = _end_by_signal(server)
    if not local:
        print(
            f"warning: listening on {shown} without authentication: anyone who can reach it can use the models\n"
            "  put a proxy with authentication in front, or leave out --host",
            file=sys.stderr,
        )
    print(
        f"Serving on http://{shown}:{sock.getsockname()[1]}/v1 (Ctrl-C to stop)", file=sys.stderr, flush=True
    )
    try:
        server.run(sockets=[sock])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sock.close()


def _end_by_signal(server: uvicorn.Server) -> dict[int, Any]:
    """Stop the server on SIGTERM and SIGINT before uvicorn installs its own handlers; returns the previous handlers.

    uvicorn raises the signal again after it has stopped: then the handler does nothing and `serve` returns.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}

    def end(number: int, frame: Any) -> None:
        server.should_exit = True

    return {n: signal.signal(n, end) for n in (signal.SIGTERM, signal.SIGINT)}


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as e:
        why = getattr(e, "strerror", None) or str(e)
        raise UserError(
            f"cannot listen on {host} port {port}: {why}", "choose another with --port or --host"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether an address is a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class OwnHostOnly:
    """On loopback, accept only loopback host names: a web page that resolves its own name to 127.0.0.1 is refused."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            named = next((v for k, v in scope["headers"] if k == b"host"), b"").decode("latin-1")
            bare = named.rsplit(":", 1)[0] if not named.endswith("]") else named
            bare = bare.strip("[]")
            if not (bare == self._host or is_loopback(bare)):
                await send(
                    {"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]}
                )
                await send({"type": "http.response.body", "body": b""})
                return
        await self._app(scope, receive, send)
