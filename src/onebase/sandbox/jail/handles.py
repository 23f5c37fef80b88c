"""Handles for objects that are not plain data: each side refers to objects of the other by number, and to errors by class.

A node is ["h", kind, ...]; its last part are the items that it contains.

    object number       of the sender         value number [item]     of the sender, of a subclass of a plain type
    yours number        of the reader         type name               a builtin type
    error name          a builtin error       errors number module name bases     a class of error of the sender
    raised text [class args fields]           an error itself
    library place       a function of the standard library, as module:name; only from the judge to the program: the reverse would not be safe
"""

import builtins
import importlib
import operator
import sys
import types
from typing import Any

from .remote import MIRRORS, Channel, Remote, mirrored
from .wire import Garbage, Item, Node, WireReader, Writer

LOAD, LOOK = 1, 2
"""Numbers of the two functions of the program's side that the judge can call from the start (`program`)."""
TYPES: tuple[type, ...] = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    list,
    tuple,
    set,
    frozenset,
    dict,
    range,
    object,
    type(None),
)
TYPE_NAMES = {t.__name__: t for t in TYPES}
LIBRARY = frozenset(
    (
        "decimal",
        "json.decoder",
        "statistics",
        "struct",
        "_queue",
        "_csv",
        "re",
        "binascii",
        "zlib",
        "dataclasses",
        "copy",
        "configparser",
    )
)
"""Modules whose error classes are the same on both sides."""
BASES = (int, float, complex, str, bytes, tuple, frozenset)


class Live:
    """A container that is sent as an object, not as a copy: its content is requested when needed."""

    def __init__(self, held: Any) -> None:
        self.held = held


class Handles:
    """The objects that one side has received from the other, and those that it has sent. peer: the connection."""

    def __init__(self, peer: Channel) -> None:
        self._peer = peer
        self.ours: dict[int, Any] = {}
        self._number: dict[int, int] = {}
        self._theirs: dict[int, Any] = {}

    def own(self, value: Any) -> int:
        """The number of one of our objects on the other side."""
        number = self._number.get(id(value))
        if number is None:
            number = self._number[id(value)] = len(self.ours) + LOOK + 1
            self.ours[number] = value
        return number

    def node(self, writer: Writer, value: Any) -> Node:
        """The node of a value that is not plain data."""
        if _theirs(value):
            return ["h", "yours", value._onebase_number, []]
        if type(value) is Live:
            return ["h", "object", self.own(value.held), []]
        if isinstance(value, type):
            name = value.__name__
            if TYPE_NAMES.get(name) is value:
                return ["h", "type", name, []]
        if isinstance(value, type) and issubclass(value, BaseException):
            if getattr(builtins, name, None) is value:
                return ["h", "error", name, []]
            bases = [b for b in value.__bases__ if issubclass(b, BaseException)]
            return ["h", "errors", self.own(value), value.__module__, value.__name__, writer.items(bases)]
        if issubclass(type(value), BaseException):
            parts = (type(value), tuple(value.args), tuple(vars(value).items()))
            return ["h", "raised", _text(value), writer.items(parts)]
        if self._peer.strict and (place := _library(value)):
            return ["h", "library", place, []]
        for base in BASES:
            if issubclass(type(value), base):  # not isinstance: an object may fake its `__class__`
                return ["h", "value", self.own(value), writer.items([base(_bare(base, value))])]
        return ["h", "object", self.own(value), []]

    def value(self, reader: WireReader, node: Node) -> Any:
        """The object of a handle. Nothing is created by name except builtin types and errors."""
        tag, kind, *rest = node
        if tag != "h":
            raise Garbage("no such tag")
        if kind == "yours":
            return self.ours[rest[0]]
        if kind == "type":
            return TYPE_NAMES[rest[0]]
        if kind == "error":
            return _error(rest[0])
        if kind == "library" and not self._peer.strict:
            module, _, name = rest[0].partition(":")
            return operator.attrgetter(name)(importlib.import_module(module))
        if kind == "raised":
            return _raised(rest[0], *reader.values(rest[1]))
        number = rest[0]
        if type(number) is not int:
            raise Garbage("no number of an object")
        if kind == "errors":
            if number not in self._theirs:
                self._theirs[number] = self._error_class(reader, *rest)
            return self._theirs[number]
        if kind == "value":
            return mirrored(self._peer, number, reader.value(rest[1][0]))
        if kind == "object":
            if number not in self._theirs:
                self._theirs[number] = Remote(self._peer, number)
            return self._theirs[number]
        raise Garbage("no such handle")

    def _error_class(
        self, reader: WireReader, number: int, module: str, name: str, bases: list[Item]
    ) -> type:
        """An error class of the other side, for use in `except`. If its module is in LIBRARY and loaded, it is the class here. (Not for every module: only
        the tests may raise `unittest.SkipTest`.)"""
        real = getattr(sys.modules.get(module), name, None) if module in LIBRARY else None
        if isinstance(real, type) and issubclass(real, BaseException):
            return real
        parents = tuple(
            b for b in reader.values(bases) if isinstance(b, type) and issubclass(b, BaseException)
        )
        return type(name, parents or (Exception,), {"_onebase_number": number, "__module__": "program"})


def _theirs(value: Any) -> bool:
    kind = type(value)
    if isinstance(value, BaseException):
        return False
    return kind is Remote or kind in MIRRORS.values() or (kind is type and "_onebase_number" in vars(value))


def _bare(base: Any, value: Any) -> Any:
    """The plain value of an object of a subclass, bypassing methods that the subclass overrides."""
    if base is str:
        return str.__str__(value)
    if base in (tuple, frozenset):
        return list(base.__iter__(value))
    if base is int:
        return int.__index__(value)
    if base is bytes:
        return bytes.__getitem__(value, slice(None))
    return base.__pos__(value)


def _library(value: Any) -> str:
    """The module:name of a function of the standard library (`len`, `math.sqrt`, `str.upper`), so that the other side uses its own."""
    if isinstance(value, types.MethodDescriptorType):
        kind = value.__objclass__
        return f"builtins:{kind.__name__}.{value.__name__}" if TYPE_NAMES.get(kind.__name__) is kind else ""
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if (
        not isinstance(module, str)
        or module.split(".")[0] not in sys.stdlib_module_names
        or module == "__main__"
    ):
        return ""
    return f"{module}:{name}" if getattr(sys.modules.get(module), str(name), None) is value else ""


def _text(error: BaseException) -> str:
    try:
        return str(error)[:1000]
    except Exception:  # the program's own __str__
        return ""


def _error(name: str) -> type[BaseException]:
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise Garbage("no such error")
    return kind


def _raised(text: str, kind: Any, args: Any, fields: Any) -> BaseException:
    """Rebuild an error that was raised on the other side."""
    if not (isinstance(kind, type) and issubclass(kind, BaseException) and isinstance(args, tuple)):
        raise Garbage("no error")
    if kind.__module__ == "builtins":
        try:
            return kind(*args)
        except Exception:  # the constructor does not accept these args
            pass
    out = kind.__new__(kind)
    out.args = args or (text,)
    for name, value in fields:
        if type(name) is str and not name.startswith("_"):
            setattr(out, name, value)
    return out
