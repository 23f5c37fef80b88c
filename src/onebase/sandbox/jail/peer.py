"""A connection of judge and program: each asks the other to do something to one of its objects. A question is answered before the next is asked,
but for those that come up meanwhile (a function of the tests that the program calls)."""

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
"""Bytes of a message."""
TEXT = 2**20
"""Letters that a call may print and have seen."""
VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.items()))
HOLDERS: tuple[Any, ...] = (list, set, bytearray)


class Broken(BaseException):
    """The other side is gone, or talks nonsense. No test may catch it, and if one does, `sound` is false."""


def _content(value: Any) -> list[Any]:
    """In a list the plain value that a container of a subclass holds, read past whatever the subclass says; nothing where it is none."""
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
    """One side. strict: this one judges. may: is the other side let do that to an object of ours?"""

    def __init__(self, reads: int, writes: int, strict: bool, may: Callable[[str, Any, Any], bool]) -> None:
        self.strict = strict
        self.sound = True
        self.raised: BaseException | None = None
        self._reads, self._writes, self._may = reads, writes, may
        self.handles = Handles(self)
        self._stdout, self._stdin = sys.stdout, sys.stdin

    def ask(self, op: str, target: int, *args: Any, **named: Any) -> Any:
        """What the other side's object gives. Raises what it raises there, Broken."""
        writer = Writer(self.handles.node)
        asked: dict[str, Any] = {
            "op": op,
            "on": target,
            "args": writer.items(args),
            "named": writer.pairs(named),
        }
        writer.finish()
        at = 0
        if self.strict and op == "call" and target > LOOK:
            asked["hear"] = sys.stdout is not self._stdout
            if isinstance(sys.stdin, io.StringIO):
                at = sys.stdin.tell()
                asked["typed"] = sys.stdin.read()
        self._send({**asked, "nodes": writer.nodes})
        while True:
            said = self._receive()
            if "op" not in said:
                left = said.get("left")
                if "typed" in asked and type(left) is int and 0 <= left <= len(asked["typed"]):
                    sys.stdin.seek(at + len(asked["typed"]) - left)
                return self._answer(said, writer, op)
            self._serve(said)

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            self._serve(self._receive())

    def _answer(self, said: Mapping[str, Any], asked: Writer, op: str) -> Any:
        try:
            reader = WireReader(said["nodes"], self.handles.value, asked.kept)
            out, printed = reader.value(said["out"]), said.get("printed")
        except (Garbage, KeyError) as e:
            raise self._broken() from e
        if isinstance(printed, str) and sys.stdout is not self._stdout:
            sys.stdout.write(printed)
        if not said.get("raised"):
            return out
        if not isinstance(out, BaseException):
            raise self._broken()
        if isinstance(out, StopIteration | StopAsyncIteration | GeneratorExit) and op != "next":
            # `map(f, values)` would end without a word, and the tests with it
            out = RuntimeError(f"the program raised {type(out).__name__}")
        self.raised = out
        raise out

    def _serve(self, asked: Mapping[str, Any]) -> None:
        known: dict[int, tuple[int, bool]] = {}
        raised, told, typed = False, io.StringIO(), io.StringIO(str(asked.get("typed", "")))
        try:
            reader = WireReader(asked["nodes"], self.handles.value)
            boxes = [(at, box, _held(box)) for at, box in reader.containers()]
            args = reader.values(asked["args"])
            named = {str(reader.value(k)): reader.value(v) for k, v in asked["named"]}
            op, target = asked["op"], self.handles.ours[asked["on"]]
        except (Garbage, KeyError, TypeError, ValueError):
            raise self._broken() from None
        try:
            with self._streams(asked, told, typed):
                out = self._do(op, target, args, named)
        except Broken:
            raise
        except BaseException as e:  # whatever it is, the other side sees it as raised by what it did
            raised, out = True, e
        more = {"printed": told.getvalue()[:TEXT], "left": len(typed.read())}
        for at, box, before in boxes:
            known[id(box)] = at, not _same(_held(box), before)
        try:
            answer = self._packed(out, raised, known, [box for _, box, _ in boxes if known[id(box)][1]], more)
        except Exception as e:  # too large, not to be read: an error of the call too
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
        said = {"out": item, "nodes": writer.nodes, "raised": raised}
        return _encoded({**said, **more})

    def _do(self, op: str, target: Any, args: list[Any], named: dict[str, Any]) -> Any:
        if not self._may(op, target, args[0] if args else None):
            error = AttributeError if op == "get" else TypeError
            raise error(f"the program may not do that to a {type(target).__name__} of the tests")
        if op == "call":
            return target(*args, **named)
        return DOES[op](target, *args)

    @contextlib.contextmanager
    def _streams(self, asked: Mapping[str, Any], told: io.StringIO, typed: io.StringIO) -> Any:
        """What the tests put in the place of standard input and output is so for the call."""
        kept = sys.stdin, sys.stdout
        if asked.get("hear"):
            sys.stdout = told
        if "typed" in asked:
            sys.stdin = typed
        try:
            yield
        finally:
            if asked.get("hear") or "typed" in asked:
                sys.stdin, sys.stdout = kept

    def _send(self, said: Mapping[str, Any]) -> None:
        self._write(_encoded(said))

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
            said = json.loads(self._read(length))
        except (ValueError, RecursionError) as e:
            raise self._broken() from e
        if not isinstance(said, dict):
            raise self._broken()
        return said

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


def _encoded(said: Mapping[str, Any]) -> bytes:
    raw = json.dumps(said, separators=(",", ":"), check_circular=False).encode()
    if len(raw) > MOST:
        raise ValueError(f"more than {MOST} bytes")
    return raw


def _held(box: Any) -> list[Any]:
    return [x for pair in box.items() for x in pair] if type(box) is dict else list(box)


def _same(now: list[Any], before: list[Any]) -> bool:
    return len(now) == len(before) and all(a is b for a, b in zip(now, before))
