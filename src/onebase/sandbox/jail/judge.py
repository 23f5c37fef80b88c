"""The side of the tests: they run here, in an interpreter in which the program never runs. Its names refer to remote objects."""

import builtins
import collections.abc
import functools
import importlib
import io
import operator
import symtable
import sys
import types
from collections.abc import Iterable
from typing import Any

from .handles import LOAD, LOOK
from .peer import Peer

FUNCTIONS = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType),
    *(functools.partial, operator.itemgetter, operator.attrgetter, operator.methodcaller),
)


def passed(tests: str, reads: int, writes: int) -> bool:
    """Whether the tests pass, with the program's values read from these descriptors. SystemExit with status 0 in the tests counts as a pass
    (`unittest.main()`)."""
    peer = Peer(reads, writes, True, may)
    try:
        code = compile(tests, "<tests>", "exec")
        names = peer.ask("call", LOAD)
        if type(names) is not list or not all(type(k) is str for k in names):
            return False
        space = Space(peer, tests, names)
        sys.modules["__main__"] = Main(space)
        exec(code, space)
    except SystemExit as e:
        return (
            peer.sound
            and e is not peer.raised
            and (e.code is None or (type(e.code) in (int, bool) and not e.code))
        )
    except BaseException:  # a failed assertion or any other error: the tests did not finish
        return False
    return peer.sound


class Space(dict[str, Any]):
    """The namespace of the tests: their own names, and the program's current values for names that they do not bind.

    Names used for judging are Python's own: the name of a builtin is that builtin, and a module of the standard library that is used without an
    import is that module, even if the program redefines it. Only if the tests use no other name can a builtin name be the tested function
    (`assert pow(2, 3) == 8`)."""

    def __init__(self, peer: Peer, tests: str, names: Iterable[str]) -> None:
        free = free_names(tests)
        modules = {k: m for k, by_parts in free.items() if by_parts and (m := _module(k))}
        of_python = {k for k in free if hasattr(builtins, k)}
        tested = of_python & set(names) if not (set(free) - of_python - set(modules)) else set()
        super().__init__(modules, __name__="__main__")
        self._peer = peer
        self._program = {k for k in names if not hasattr(builtins, k) or tested == {k}}
        for name in self._program & class_names(tests):  # class bodies look up the dict without `__missing__`
            self[name] = self[name]

    def __missing__(self, name: str) -> Any:
        if name not in self._program:
            raise KeyError(name)
        return self._peer.ask("call", LOOK, name)


class Main(types.ModuleType):
    """Module `__main__` of the tests, in which unittest finds them."""

    def __init__(self, space: Space) -> None:
        super().__init__("__main__")
        self.__dict__["_space"] = space

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_space"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __dir__(self) -> list[str]:
        return list(self.__dict__["_space"])


def may(op: str, target: Any, name: Any) -> bool:
    """Whether the program may do an operation on an object of the tests: call functions, use iterators, and use public names of instances of the
    tests' own classes. Not more: through a frame or a module it could reach the expected values."""
    kind = type(target)
    if isinstance(target, FUNCTIONS):
        return op == "call"
    public = not isinstance(name, str) or not name.startswith("_")
    if kind in (io.StringIO, io.BytesIO):
        return op in ("get", "iter", "next") and public
    if isinstance(target, type):
        return (
            target.__module__ == "__main__"
            and op in ("call", "get", "instancecheck")
            and (op != "get" or public)
        )
    if kind.__module__ == "__main__":
        return op != "del" and (op not in ("get", "set") or public)
    return isinstance(target, collections.abc.Iterator) and op in ("iter", "next")


def free_names(tests: str) -> dict[str, bool]:
    """Names that the tests use but do not bind, and for each whether it is used only as `name.something`."""
    top = symtable.symtable(tests, "<tests>", "exec")
    mine = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    used = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    for table in _below(top):
        used |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
        mine |= {s.get_name() for s in table.get_symbols() if s.is_declared_global() and s.is_assigned()}
    free = used - mine
    if not free & sys.stdlib_module_names:
        return dict.fromkeys(free, False)
    import ast

    tree = ast.parse(tests)
    of = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    unqualified = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in of}
    return {name: name not in unqualified for name in free}


def class_names(tests: str) -> set[str]:
    """Names used in the bodies of classes."""
    tables = [t for t in _below(symtable.symtable(tests, "<tests>", "exec")) if t.get_type() == "class"]
    return {s.get_name() for t in tables for s in t.get_symbols() if s.is_referenced()}


def _below(table: symtable.SymbolTable) -> Iterable[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _below(child)


def _module(name: str) -> Any:
    return importlib.import_module(name) if name in sys.stdlib_module_names else None
