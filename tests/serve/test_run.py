"""The server as a process: its address, its end, and what it says when it cannot start."""

import builtins
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onebase.errors import UserError
from onebase.serve import create_app, serve
from onebase.serve.run import is_loopback
from tests.helpers import tiny_base

ROOT = Path(__file__).parents[2]
SCRIPT = """
from onebase.serve import create_app, serve
from tests.helpers import tiny_base
serve(create_app(tiny_base(context=20000, depth=1, endless=True), "tiny"), *{args})
print("ended well", flush=True)
"""


def start(args: str) -> tuple[subprocess.Popen[str], int, str]:
    """A server in a process of its own, its port and what it said until it was ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(args=args)],
        cwd=ROOT,
        env=os.environ
        | {"OMP_NUM_THREADS": "1"},  # threads that wait for a busy machine's cores take seconds
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    while "Serving on" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    found = re.search(r":(\d+)/v1", said)
    assert found
    return process, int(found[1]), said


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    process, port, said = start('("127.0.0.1", 0)')
    yield process, port, said
    if process.poll() is None:
        process.kill()
    process.communicate()


def get(port: int, path: str, host: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", path, headers={"Host": host} if host else {})
    status = connection.getresponse().status
    connection.close()
    return status


def test_only_loopback_names_are_answered(server: tuple[Any, int, str]) -> None:
    _, port, said = server
    assert "warning" not in said
    for good in (None, "localhost", f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "[::1]"):
        assert get(port, "/health", good) == 200
    for bad in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
    ):
        assert get(port, "/health", bad) == 403


def test_sigterm_lets_the_request_under_way_end(server: tuple[subprocess.Popen[str], int, str]) -> None:
    process, port, _ = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    asked = {"model": "tiny", "prompt": "The", "max_tokens": 150, "stream": True, "temperature": 0}
    connection.request("POST", "/v1/completions", json.dumps(asked))
    answer = connection.getresponse()
    answer.readline()
    process.send_signal(signal.SIGTERM)
    assert answer.read().endswith(b"data: [DONE]\n\n")
    connection.close()
    out, err = process.communicate(timeout=600)
    assert (process.returncode, out.strip()) == (0, "ended well")
    assert "Traceback" not in err


def test_another_address_is_told_to_have_no_password() -> None:
    process, port, said = start('("0.0.0.0", 0)')
    try:
        assert "warning: listening on 0.0.0.0 without authentication" in said
        assert get(port, "/health", "any.example") == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=600)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()


def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError) as e:
        serve(create_app(tiny_base(), "tiny"), port=taken.getsockname()[1])
    assert "in use" in e.value.cause
    assert "--port" in e.value.remedy


def test_loopback_addresses() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.com", "")))


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "uvicorn":
            raise ImportError(name, name="uvicorn")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for use in (lambda: serve(None), lambda: create_app(tiny_base(), "x")):  # type: ignore[arg-type]
        with pytest.raises(UserError) as e:
            use()
        assert e.value.remedy == 'pip install "onebase[serve]"'


def test_an_address_that_is_none_is_one_clear_error() -> None:
    began = time.monotonic()
    for host, port in (("not an address", 0), ("127.0.0.1", 99999)):
        with pytest.raises(UserError, match="cannot listen"):
            serve(create_app(tiny_base(), "tiny"), host, port)
    assert time.monotonic() - began < 300  # nothing is waited for
