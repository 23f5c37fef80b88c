"""Serialises values between judge and program: plain data by exact type, and handles for everything else. Reading never runs code.

A value is an item of JSON. None, bool, str, float and small int are themselves; everything else is [number of a node]. The nodes are one flat
list, so deep values are not nested, and a value may contain itself. A node is [tag, ...]:

    i hex   c real imag   y, Y hex (bytes, bytearray)   r start stop step   z (Ellipsis)
    l, t, S, F items (list, tuple, set, frozenset)      d pairs             x name items (PLAIN, MUTABLE)
    o number [tag items]    a container of the request, with its new content if it has changed
    h ...                   not plain: read and written by `handles`
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

Item = Any
Node = list[Any]
SMALL = 2**63
MISSING = object()
BUILDING = object()

PLAIN: dict[tuple[str, str], Callable[[Any], list[Any]]] = {
    # an immutable type of the standard library: its parts, from which it can be rebuilt
    ("decimal", "Decimal"): lambda v: [str(v)],
    ("fractions", "Fraction"): lambda v: [v.numerator, v.denominator],
    ("datetime", "date"): lambda v: [v.year, v.month, v.day],
    ("datetime", "timedelta"): lambda v: [v.days, v.seconds, v.microseconds],
    ("datetime", "time"): lambda v: [v.hour, v.minute, v.second, v.microsecond],
    ("datetime", "datetime"): lambda v: [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond],
}
MUTABLE = {"Counter": "d", "OrderedDict": "d", "defaultdict": "d", "deque": "l"}
"""Types of `collections`, and the tag of their content."""
TAGS: dict[type, str] = {list: "l", tuple: "t", set: "S", frozenset: "F", dict: "d"}
CONTAINERS: dict[str, type] = {tag: kind for kind, tag in TAGS.items()}


Known = dict[int, tuple[int, bool]]
"""By id of a container of the request: its number there, and whether it has changed."""


class Garbage(Exception):
    """The received data is not a valid value."""


class Writer:
    """Writes values as items, with their nodes. handle: the node of a value that is not plain. known: containers of the request, by id."""

    def __init__(self, handle: Callable[["Writer", Any], Node], known: Known | None = None) -> None:
        self.nodes: list[Node] = []
        self.kept: list[Any] = []  # by number; keeps values alive, so that no id is reused
        self.handle = handle
        self.known = known or {}
        self._at: dict[int, int] = {}
        self._todo: list[int] = []

    def item(self, value: Any) -> Item:
        """The item of a value, with all its nodes written."""
        out = self._item(value)
        self.finish()
        return out

    def finish(self) -> None:
        while self._todo:
            at = self._todo.pop()
            self.nodes[at] = self._node(self.kept[at])

    def _item(self, value: Any) -> Item:
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is int and -SMALL < value < SMALL:
            return value
        at = self._at.get(id(value))
        if at is None:
            at = self._at[id(value)] = len(self.nodes)
            self.nodes.append([])
            self.kept.append(value)
            self._todo.append(at)
        return [at]

    def items(self, values: Any) -> list[Item]:
        return [self._item(v) for v in values]

    def pairs(self, values: Any) -> list[Item]:
        return [[self._item(k), self._item(v)] for k, v in values.items()]

    def content(self, value: Any) -> Node:
        """The content of a container, as the tag and items of a node."""
        tag = TAGS.get(type(value))
        if tag is None:
            return ["Y", value.hex()]
        return [tag, self.pairs(value) if tag == "d" else self.items(value)]

    def _node(self, value: Any) -> Node:
        kind = type(value)
        if id(value) in self.known:
            number, changed = self.known[id(value)]
            return ["o", number, self.content(value)] if changed else ["o", number]
        if kind in TAGS or kind is bytearray:
            return self.content(value)
        if kind is int:
            return ["i", hex(value)]
        if kind is bytes:
            return ["y", value.hex()]
        if kind is complex:
            return ["c", value.real, value.imag]
        if kind is range:
            return ["r", *self.items((value.start, value.stop, value.step))]
        if value is Ellipsis:
            return ["z"]
        return self._of_library(value, kind) or self.handle(self, value)

    def _of_library(self, value: Any, kind: type) -> Node | None:
        module, name = kind.__module__, kind.__qualname__
        if getattr(sys.modules.get(module), name, None) is not kind:
            return None
        if module == "collections" and name in MUTABLE:
            items = self.pairs(value) if MUTABLE[name] == "d" else self.items(value)
            return ["x", f"{module}.{name}", items]
        if (module, name) in PLAIN and getattr(value, "tzinfo", None) is None:
            return ["x", f"{module}.{name}", self.items(PLAIN[module, name](value))]
        return None


class WireReader:
    """Reads values from items. handle: the value of a node with any other tag. sent: values of the request, by number. Raises Garbage for invalid data:
    only these types are ever created, whatever is sent."""

    def __init__(
        self,
        nodes: Any,
        handle: Callable[["WireReader", Node], Any],
        sent: list[Any] | None = None,
    ) -> None:
        if not isinstance(nodes, list) or not all(isinstance(n, list) and n for n in nodes):
            raise Garbage("no list of nodes")
        self.nodes: list[Node] = nodes
        self.handle = handle
        self.sent = sent or []
        self.built: list[Any] = [MISSING] * len(nodes)
        try:
            self._shells()
            self._fill()
        except (
            TypeError,
            ValueError,
            KeyError,
            IndexError,
            AttributeError,
            OverflowError,
            ArithmeticError,
        ) as e:
            raise Garbage(f"{type(e).__name__}: {e}") from None

    def value(self, item: Item) -> Any:
        if item is None or isinstance(item, bool | str | float | int):
            return item
        if not (isinstance(item, list) and len(item) == 1 and type(item[0]) is int and item[0] >= 0):
            raise Garbage("no item")
        at = item[0]
        if at >= len(self.built):
            raise Garbage("no such node")
        if self.built[at] is MISSING:
            self._build(at)
        return self.built[at]

    def values(self, items: Any) -> list[Any]:
        if not isinstance(items, list):
            raise Garbage("no list of items")
        return [self.value(i) for i in items]

    def containers(self) -> Iterator[tuple[int, Any]]:
        """Mutable containers, by number of their node."""
        for at, node in enumerate(self.nodes):
            if node[0] in ("l", "S", "d", "Y"):
                yield at, self.built[at]

    def _shells(self) -> None:
        """Create mutable containers, empty, before the values that contain them."""
        for at, node in enumerate(self.nodes):
            tag = node[0]
            if tag in ("l", "S", "d"):
                self.built[at] = CONTAINERS[tag]()
            elif tag == "Y":
                self.built[at] = bytearray()
            elif tag == "x" and node[1].startswith("collections."):
                self.built[at] = _collection(node[1])
            elif tag == "o":
                self.built[at] = self.sent[_natural(node[1])]

    def _fill(self) -> None:
        for at in range(len(self.nodes)):
            if self.built[at] is MISSING:
                self._build(at)
        for at, node in enumerate(self.nodes):
            tag = node[0]
            if tag == "o" and len(node) == 3:
                tag, content = node[2]
                kind = bytearray if tag == "Y" else CONTAINERS[tag]
                if type(self.built[at]) is not kind:
                    raise Garbage("another kind of container than was sent")
                self._put(self.built[at], tag, content)
            elif tag in ("l", "S", "d", "Y"):
                self._put(self.built[at], tag, node[1])
            elif tag == "x" and node[1].startswith("collections."):
                self._put(self.built[at], MUTABLE[node[1].removeprefix("collections.")], node[2])

    def _put(self, box: Any, tag: str, content: Any) -> None:
        if tag == "Y":
            box[:] = bytes.fromhex(content)
        elif tag == "d":
            pairs = {self.value(k): self.value(v) for k, v in content}
            box.clear()
            for k, v in pairs.items():
                box[k] = v
        else:
            values = self.values(content)
            box.clear()
            box.update(values) if tag == "S" else box.extend(values)

    def _build(self, first: int) -> None:
        """Build an immutable value after everything that it contains, without recursion."""
        stack = [first]
        while stack:
            at = stack[-1]
            node = self.nodes[at]
            missing = {
                i for i in _within(node) if self.built[_natural(i)] is MISSING or self.built[i] is BUILDING
            }
            if missing:
                if any(self.built[i] is BUILDING for i in missing):
                    raise Garbage("an immutable value contains itself")
                self.built[at] = BUILDING
                stack += missing
                continue
            if self.built[at] is MISSING or self.built[at] is BUILDING:
                self.built[at] = self._made(node)
            stack.pop()

    def _made(self, node: Node) -> Any:
        tag, rest = node[0], node[1:]
        if tag == "i":
            return int(rest[0], 16)
        if tag == "y":
            return bytes.fromhex(rest[0])
        if tag == "c":
            return complex(float(rest[0]), float(rest[1]))
        if tag == "r":
            return range(*self.values(rest))
        if tag == "z":
            return Ellipsis
        if tag in ("t", "F"):
            return CONTAINERS[tag](self.values(rest[0]))
        if tag == "x":
            module, name = rest[0].split(".")
            if (module, name) not in PLAIN:
                raise Garbage("no such type")
            return getattr(__import__(module), name)(*self.values(rest[1]))
        return self.handle(self, node)


def _within(node: Node) -> list[int]:
    """The nodes that must be built before an immutable one."""
    if node[0] == "r":
        items = node[1:]
    elif node[0] in ("t", "F"):
        items = node[1]
    elif node[0] == "x":
        items = node[2]
    elif node[0] == "h":
        items = node[-1]
    else:
        return []
    return [i[0] for i in items if isinstance(i, list)]


def _natural(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise Garbage("no number of a node")
    return number


def _collection(name: str) -> Any:
    import collections

    kind = name.removeprefix("collections.")
    if kind not in MUTABLE:
        raise Garbage("no such type")
    return getattr(collections, kind)()
