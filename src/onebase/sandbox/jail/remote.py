"""Proxies for objects of the other side: every operation is forwarded to the owner.

The judge (`strict`) has one more rule: **the program never decides a comparison of the tests.** A method or attribute that the tests use is a request
to the program, and its answer is a value. An operator with a value of the tests on the other side (`result == 4`, `abs(result - 4) < 0.1`,
`4 in result`) is a judgement, for which no method of the program is called: it could see the expected value, or always return True. So an object equals
a plain value only through the plain value that it contains (a subclass of list), and otherwise not.
"""

import operator
from collections.abc import Callable
from typing import Any, Protocol

COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")
COUNTED = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("and_", "or_", "xor", "lshift", "rshift"),
)
ONE = ("bool", "len", "iter", "next", "reversed", "hash", "str", "repr", "bytes", "int", "float", "complex")
ONE_MORE = (
    "index",
    "abs",
    "neg",
    "pos",
    "invert",
    "round",
    "trunc",
    "floor",
    "ceil",
    "format",
    "enter",
    "exit",
)
HELD = ("getitem", "setitem", "delitem", "copy", "instancecheck", "subclasscheck")
SIMPLE: tuple[type, ...] = (bool, str, bytes, int, float, complex)
ANSWERS: dict[str, type] = {t.__name__: t for t in SIMPLE} | {
    **dict.fromkeys(("len", "hash", "index"), int),
    **dict.fromkeys(("repr", "format"), str),
    **dict.fromkeys(("instancecheck", "subclasscheck"), bool),
}
"""The exact type that Python requires of the result."""
UNDECIDED = "the tests compare an object of the program by its own operators; let them call a method, or compare plain values"


class Channel(Protocol):
    """The connection, as `Remote` needs it."""

    strict: bool

    def ask(self, op: str, target: int, *args: Any, **named: Any) -> Any: ...


class Remote:
    """A proxy for an object of the other side. spoilt: the result of an operator with a value of the tests."""

    __slots__ = ("_onebase_number", "_onebase_peer", "_onebase_spoilt")
    _onebase_peer: Channel
    _onebase_number: int
    _onebase_spoilt: bool

    def __init__(self, peer: Channel, number: int) -> None:
        object.__setattr__(self, "_onebase_peer", peer)
        object.__setattr__(self, "_onebase_number", number)
        object.__setattr__(self, "_onebase_spoilt", False)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._onebase_peer.ask("call", self._onebase_number, *args, **named)

    def __getattr__(self, name: str) -> Any:
        return self._onebase_peer.ask("get", self._onebase_number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._onebase_peer.ask("set", self._onebase_number, name, value)

    def __delattr__(self, name: str) -> None:
        self._onebase_peer.ask("del", self._onebase_number, name)

    def __contains__(self, value: Any) -> bool:
        if not self._onebase_peer.strict or isinstance(value, Remote):
            return _asked(self, "contains", value) is True
        return any(v is value or v == value for v in _asked(self, "iter"))

    def __deepcopy__(self, memo: Any) -> Any:
        return _asked(self, "deepcopy")

    def __exit__(self, *_: Any) -> Any:
        return _asked(self, "exit", None, None, None)


def _asked(self: Remote, op: str, *args: Any) -> Any:
    peer = self._onebase_peer
    if peer.strict and self._onebase_spoilt and not (args and isinstance(args[0], Remote)):
        raise TypeError(UNDECIDED)
    out = peer.ask(op, self._onebase_number, *args)
    if op in ANSWERS and type(out) is not ANSWERS[op]:
        raise TypeError(f"{op} returned {type(out).__name__}")
    return out


def _unary(op: str) -> Callable[..., Any]:
    return lambda self, *args: _asked(self, op, *args)


def _compared(op: str) -> Callable[[Remote, Any], Any]:
    def method(self: Remote, other: Any) -> Any:
        if not self._onebase_peer.strict:
            return _asked(self, op, other)
        if isinstance(other, Remote):
            return _asked(self, op, other) is True
        plain = content(self)
        if plain is NOTHING and op in ("eq", "ne"):
            return op == "ne"
        if plain is NOTHING:
            raise TypeError(UNDECIDED)
        return getattr(operator, op)(plain, other)

    return method


def _counted(op: str, reflected: bool) -> Callable[[Remote, Any], Any]:
    def method(self: Remote, other: Any, *_: Any) -> Any:
        name = f"r{op}" if reflected else op
        if not self._onebase_peer.strict or isinstance(other, Remote):
            return _asked(self, name, other)
        plain = content(self)
        if plain is not NOTHING:
            call = getattr(operator, op)
            return call(other, plain) if reflected else call(plain, other)
        out = _asked(self, name, other)
        if not isinstance(out, Remote):
            raise TypeError(UNDECIDED)
        object.__setattr__(out, "_onebase_spoilt", True)
        return out

    return method


NOTHING = object()


def content(self: Remote) -> Any:
    """The current plain value of an object of a subclass of list, dict, set ...; NOTHING for other objects."""
    if self._onebase_spoilt:
        raise TypeError(UNDECIDED)
    answer = self._onebase_peer.ask("content", self._onebase_number)
    return answer[0] if type(answer) is list and answer else NOTHING


def _mirror(kind: type) -> type:
    """A subclass of a plain type that behaves as its plain value, and requests missing attributes from the owner (the fields of a namedtuple)."""

    def missing(self: Any, name: str) -> Any:
        if name.startswith("_onebase"):
            raise AttributeError(name)
        return self._onebase_peer.ask("get", self._onebase_number, name)

    return type(f"program's {kind.__name__}", (kind,), {"__getattr__": missing, "__module__": "program"})


MIRRORS = {kind: _mirror(kind) for kind in (int, float, complex, str, bytes, tuple, frozenset)}


def mirrored(peer: Channel, number: int, value: Any) -> Any:
    """A value that is an object of a subclass on the other side."""
    kind = MIRRORS.get(type(value))
    if kind is None:
        return Remote(peer, number)
    out = kind(value)
    out._onebase_peer, out._onebase_number = peer, number
    return out


for _op in (*ONE, *ONE_MORE, *HELD):
    if _op != "exit":
        setattr(Remote, f"__{_op}__", _unary(_op))
for _op in COMPARED:
    setattr(Remote, f"__{_op}__", _compared(_op))
for _op in COUNTED:
    setattr(Remote, f"__{_op.strip('_')}__", _counted(_op, False))
    setattr(Remote, f"__r{_op.strip('_')}__", _counted(_op, True))
