"""The connection between judge and program: each can request an operation on an object of the other. A request is answered before the next one,
except nested requests (the program calls a function of the tests)."""

import contextlib
import copy
import io
import json
import math
import operator
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .handles import LOOK, Handles
from .remote import COMPARED, COUNTED
from .wire import Garbage, WireReader, Writer

MOST = 32 * 2**20
"""Largest message, in bytes."""
TEXT = 2**20
"""Characters of a call's output that are kept."""
VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.items()))
HOLDERS: tuple[Any, ...] = (list, set, bytearray)


class Broken(BaseException):
    """The other side has exited, or sent an invalid message. Tests should not catch it; if one does, `sound` is False."""


def _content(value: Any) -> list[Any]:
    """A list with the plain value of a container of a subclass, bypassing overridden methods; empty if it is not a container."""
    if issubclass(type(value), dict):
        return [dict(dict.items(value))]
    if type(value) in VIEWS:
        return [set(value)]
    for kind in HOLDERS:
        if issubclass(type(value), kind):
            return [kind(_inner(kind, value))]
    return []


def _inner(kind: Any, value: Any) -> Any:
    return kind.__iter__(value)


def _reflected(op: str) -> Callable[[Any, Any], Any]:
    return lambda value, other: getattr(operator, op)(other, value)


DOES: dict[str, Callable[..., Any]] = {
    "get": getattr,
    "set": setattr,
    "del": delattr,
    "content": _content,
    **{kind.__name__: kind for kind in (bool, str, bytes, int, float, complex)},
    **{f.__name__: f for f in (len, iter, next, reversed, hash, repr, abs, round, format)},
    **{f.__name__: f for f in (math.trunc, math.floor, math.ceil, copy.copy, copy.deepcopy)},
    **{name: getattr(operator, name) for name in ("index", "neg", "pos", "invert", "contains")},
    **{name: getattr(operator, name) for name in ("getitem", "setitem", "delitem", *COMPARED, *COUNTED)},
    **{f"r{name}": _reflected(name) for name in COUNTED},
    "enter": lambda value: type(value).__enter__(value),
    "exit": lambda value, *error: type(value).__exit__(value, *error),
    "instancecheck": lambda kind, value: isinstance(value, kind),
    "subclasscheck": lambda kind, value: issubclass(value, kind),
}


class Peer:
    """One side of the connection. strict: this is the judge. may: whether the other side may do an operation on one of our objects."""

    def __init__(self, reads: int, writes: int, strict: bool, may: Callable[[str, Any, Any], bool]) -> None:
        self.strict = strict
        self.sound = True
        self.raised: BaseException | None = None
        self._reads, self._writes, self._may = reads, writes, may
        self.handles = Handles(self)
        self._stdout, self._stdin = sys.stdout, sys.stdin

    def ask(self, op: str, target: int, *args: Any, **named: Any) -> Any:
        """Request an operation on an object of the other side; returns its result. Raises its error, or Broken."""
        writer = Writer(self.handles.node)
        request: dict[str, Any] = {
            "op": op,
            "on": target,
            "args": writer.items(args),
            "named": writer.pairs(named),
        }
        writer.finish()
        at = 0
        if self.strict and op == "call" and target > LOOK:
            request["hear"] = sys.stdout is not self._stdout
            if isinstance(sys.stdin, io.StringIO):
                at = sys.stdin.tell()
                request["typed"] = sys.stdin.read()
        self._send({**request, "nodes": writer.nodes})
        while True:
            message = self._receive()
            if "op" not in message:
                left = message.get("left")
                if "typed" in request and type(left) is int and 0 <= left <= len(request["typed"]):
                    sys.stdin.seek(at + len(request["typed"]) - left)
                return self._answer(message, writer, op)
            self._serve(message)

    def serve(self) -> None:
        """Answer requests until the other side exits."""
        while True:
            self._serve(self._receive())

    def _answer(self, answer: Mapping[str, Any], request: Writer, op: str) -> Any:
        try:
            reader = WireReader(answer["nodes"], self.handles.value, request.kept)
            out, printed = reader.value(answer["out"]), answer.get("printed")
        except (Garbage, KeyError) as e:
            raise self._broken() from e
        if isinstance(printed, str) and sys.stdout is not self._stdout:
            sys.stdout.write(printed)
        if not answer.get("raised"):
            return out
        if not isinstance(out, BaseException):
            raise self._broken()
        if isinstance(out, StopIteration | StopAsyncIteration | GeneratorExit) and op != "next":
            # `map(f, values)` would end silently, and the tests with it
            out = RuntimeError(f"the program raised {type(out).__name__}")
        self.raised = out
        raise out

    def _serve(self, request: Mapping[str, Any]) -> None:
        known: dict[int, tuple[int, bool]] = {}
        raised, stdout, stdin = False, io.StringIO(), io.StringIO(str(request.get("typed", "")))
        try:
            reader = WireReader(request["nodes"], self.handles.value)
            boxes = [(at, box, _items(box)) for at, box in reader.containers()]
            args = reader.values(request["args"])
            named = {str(reader.value(k)): reader.value(v) for k, v in request["named"]}
            op, target = request["op"], self.handles.ours[request["on"]]
        except (Garbage, KeyError, TypeError, ValueError):
            raise self._broken() from None
        try:
            with self._streams(request, stdout, stdin):
                out = self._do(op, target, args, named)
        except Broken:
            raise
        except BaseException as e:  # any error is raised on the other side, as the result of its request
            raised, out = True, e
        more = {"printed": stdout.getvalue()[:TEXT], "left": len(stdin.read())}
        for at, box, before in boxes:
            known[id(box)] = at, not _same(_items(box), before)
        try:
            answer = self._packed(out, raised, known, [box for _, box, _ in boxes if known[id(box)][1]], more)
        except Exception as e:  # too large, or cannot be read: this is an error of the call too
            answer = self._packed(
                ValueError(f"the value cannot be sent: {type(e).__name__}"), True, {}, [], more
            )
        self._write(answer)

    def _packed(
        self,
        out: Any,
        raised: bool,
        known: dict[int, tuple[int, bool]],
        changed: list[Any],
        more: Mapping[str, Any],
    ) -> bytes:
        writer = Writer(self.handles.node, known)
        item = writer.item(out)
        for box in changed:
            writer.item(box)
        answer = {"out": item, "nodes": writer.nodes, "raised": raised}
        return _encoded({**answer, **more})

    def _do(self, op: str, target: Any, args: list[Any], named: dict[str, Any]) -> Any:
        if not self._may(op, target, args[0] if args else None):
            error = AttributeError if op == "get" else TypeError
            raise error(f"the program may not do that to a {type(target).__name__} of the tests")
        if op == "call":
            return target(*args, **named)
        return DOES[op](target, *args)

    @contextlib.contextmanager
    def _streams(self, request: Mapping[str, Any], stdout: io.StringIO, stdin: io.StringIO) -> Any:
        """Redirect standard input and output during a call, if the tests have replaced theirs."""
        saved = sys.stdin, sys.stdout
        if request.get("hear"):
            sys.stdout = stdout
        if "typed" in request:
            sys.stdin = stdin
        try:
            yield
        finally:
            if request.get("hear") or "typed" in request:
                sys.stdin, sys.stdout = saved

    def _send(self, message: Mapping[str, Any]) -> None:
        self._write(_encoded(message))

    def _write(self, raw: bytes) -> None:
        view = memoryview(len(raw).to_bytes(4, "big") + raw)
        try:
            while view:
                view = view[os.write(self._writes, view) :]
        except OSError as e:
            raise self._broken() from e

    def _receive(self) -> dict[str, Any]:
        length = int.from_bytes(self._read(4), "big")
        if length > MOST:
            raise self._broken()
        try:
            message = json.loads(self._read(length))
        except (ValueError, RecursionError) as e:
            raise self._broken() from e
        if not isinstance(message, dict):
            raise self._broken()
        return message

    def _read(self, n: int) -> bytes:
        parts = []
        while n:
            try:
                part = os.read(self._reads, min(n, 2**20))
            except OSError as e:
                raise self._broken() from e
            if not part:
                raise self._broken()
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def _broken(self) -> Broken:
        self.sound = False
        return Broken()


def _encoded(message: Mapping[str, Any]) -> bytes:
    raw = json.dumps(message, separators=(",", ":"), check_circular=False).encode()
    if len(raw) > MOST:
        raise ValueError(f"more than {MOST} bytes")
    return raw


def _items(box: Any) -> list[Any]:
    return [x for pair in box.items() for x in pair] if type(box) is dict else list(box)


def _same(now: list[Any], before: list[Any]) -> bool:
    return len(now) == len(before) and all(a is b for a, b in zip(now, before))
