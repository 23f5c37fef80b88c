"""The Python standard library as data: documents of code, documents of prose, and functions with their docstrings.

It is on every machine that runs Python; the licence is PSF-2.0. Each file is parsed once with `ast`, and only the text that is
used is kept. The result depends on the Python version, and so does the fingerprint of the prepared corpus.
"""

from __future__ import annotations

import ast
import functools
import gc
import io
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onebase.data.sources import Document
from onebase.errors import DataError

MAX_FILE_BYTES = 300_000
_CHUNK_CHARS = 3_000  # a code or prose document: some adjacent definitions
_SKIP = {
    "test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "encodings", "pydoc_data", "site-packages",
    "dist-packages", "lib-dynload", "__pycache__", "__phello__",
}  # fmt: skip
# Modules that repeat one another's functions are on the same side of a split.
_FAMILY = {
    "ntpath": "posixpath", "genericpath": "posixpath", "nturl2path": "posixpath", "_pydecimal": "decimal",
    "_pyio": "io", "_pydatetime": "datetime", "_strptime": "datetime", "sre_compile": "re", "sre_parse": "re",
    "sre_constants": "re", "profile": "cProfile", "asyncore": "asynchat", "smtpd": "asynchat",
    "_collections_abc": "collections", "pickletools": "pickle", "_weakrefset": "weakref", "wave": "aifc", "sunau": "aifc",
}  # fmt: skip
_Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """A function or method. `source` is dedented and has no docstring; `summary` is the docstring's first sentence."""

    id: str
    top: str
    source: str
    summary: str


@dataclass(frozen=True)
class SourceModule:
    """One file. `top` is its top-level name (or family): the unit by which code is split."""

    name: str
    top: str
    code: tuple[Document, ...]
    prose: tuple[Document, ...]
    functions: tuple[Function, ...]


@functools.cache
def modules() -> tuple[SourceModule, ...]:
    """The standard library's modules, by name; tests, generated tables and files that do not parse are left out.

    Raises DataError when this Python has no library in source form.
    """
    root = Path(sysconfig.get_path("stdlib"))
    out = []
    collecting = gc.isenabled()
    gc.disable()  # syntax trees are many small objects without cycles: garbage collection takes a third of the time
    try:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if _SKIP & set(parts) or parts[0].startswith(("config-", "_sysconfigdata")):
                continue
            try:
                if path.stat().st_size > MAX_FILE_BYTES:
                    continue
                source = path.read_text(encoding="utf-8")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # old escapes in other people's strings
                    tree = ast.parse(source)
            except (SyntaxError, UnicodeDecodeError, OSError):
                continue
            out.append(_module(".".join(parts), source, tree))
    finally:
        if collecting:
            gc.enable()
    if not out:
        raise DataError(
            f"no Python sources under {root}", "use a Python that ships its standard library as .py files"
        )
    return tuple(out)


def functions_of(found: tuple[SourceModule, ...]) -> list[Function]:
    """All functions of the modules `found`, in order."""
    return [f for m in found for f in m.functions]


@functools.cache
def reference() -> tuple[Document, ...]:
    """The language reference as `help()` shows it (pydoc_data/topics.py); empty where Python ships without it."""
    path = Path(sysconfig.get_path("stdlib")) / "pydoc_data" / "topics.py"
    out = []
    if path.is_file():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
                for key, text in ast.literal_eval(node.value).items():
                    out.append(
                        Document(text=text, source="prose", licence="PSF-2.0", id=f"reference/{key}", meta={})
                    )
    return tuple(out)


def _module(name: str, source: str, tree: ast.Module) -> SourceModule:
    top = name.split(".")[0]
    top = _FAMILY.get(top, top)
    text = list(io.StringIO(source))  # as `ast` counts lines: a form feed ends none
    named = list(_named(tree, name))
    return SourceModule(
        name=name,
        top=top,
        code=tuple(_documents("code", name, _code(text, tree))),
        prose=tuple(_documents("prose", name, _prose(named))),
        functions=tuple(_functions(text, named, top)),
    )


def _documents(source: str, name: str, texts: Iterator[str]) -> Iterator[Document]:
    for i, text in enumerate(texts):
        yield Document(
            text=text, source=source, licence="PSF-2.0", id=f"{source}/{name}:{i}", meta={"module": name}
        )


def _code(text: list[str], tree: ast.Module) -> Iterator[str]:
    """The file cut between top-level statements into pieces of about 3,000 characters; no definition is cut."""
    start, size, at = 0, 0, 0
    for node in tree.body:
        end = node.end_lineno or at
        size += sum(map(len, text[at:end]))
        at = end
        if size >= _CHUNK_CHARS:
            yield "".join(text[start:at])
            start, size = at, 0
    rest = "".join(text[start:])
    if rest.strip():
        yield rest


def _prose(named: list[tuple[str, ast.AST]]) -> Iterator[str]:
    """The docstrings as text, each under the dotted name of its object, in pieces of about 3,000 characters."""
    pending: list[str] = []
    for name, node in named:
        doc = ast.get_docstring(node)  # type: ignore[arg-type]
        if doc and len(doc) >= 60:
            pending.append(f"{name}\n\n{doc}\n")
        if sum(map(len, pending)) >= _CHUNK_CHARS:
            yield "\n".join(pending)
            pending = []
    if pending:
        yield "\n".join(pending)


def _functions(text: list[str], named: list[tuple[str, ast.AST]], top: str) -> Iterator[Function]:
    """Functions with a docstring whose first sentence is readable, and with 40 to 700 characters of source without it.

    Special methods (`__len__`) and bodies that only raise or pass are left out: their source does not show what they do.
    """
    for name, node in named:
        if isinstance(node, _Definition) and not node.name.startswith("__") and not _is_stub(node):
            summary = _summary(ast.get_docstring(node) or "")
            source = _without_docstring(text, node) if summary else ""
            if 40 <= len(source) <= 700:
                yield Function(f"{name}:{node.lineno}", top, source, summary)


def _named(node: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, ast.AST]]:
    """The module, its classes, functions and methods with dotted names, in order, without definitions inside functions."""
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _named(child, f"{name}.{child.name}")
        elif isinstance(child, _Definition):
            yield f"{name}.{child.name}", child


def _is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return all(isinstance(x, (ast.Raise, ast.Pass)) for x in node.body[1:])


def _without_docstring(text: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    doc, first = node.body[0], node.lineno - 1
    if doc.lineno - 1 <= first:  # the docstring is on the line of the def
        return ""
    kept = text[first : doc.lineno - 1] + text[doc.end_lineno : node.end_lineno]
    indent = len(kept[0]) - len(kept[0].lstrip())
    return "".join(line[indent:] if not line[:indent].strip() else line for line in kept).strip("\n") + "\n"


def _summary(doc: str) -> str:
    """First sentence of the first paragraph on one line; "" unless it is 10 to 200 characters of words."""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z`'\"(])", paragraph)[0]
    plain = (
        sentence[:1].isalpha()
        and 10 <= len(sentence) <= 200
        and len(re.findall(r"[A-Za-z]{2,}", sentence)) >= 3
    )
    return sentence if plain and "->" not in sentence and ">>>" not in sentence else ""
