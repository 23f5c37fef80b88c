"""The glossary is true: each word is where the page says, a class has a name of its own, and words that went are gone."""

import ast
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
WORDS, _, GONE = PAGE.partition("## Words that are not used as names")
PLACES = re.findall(r"`(onebase\.[\w.]+)`", WORDS)
REFUSED = [
    w
    for line in GONE.splitlines()
    if line.startswith("| ")
    for w in line.split("|")[1].replace(",", " ").split()
][1:]
FILES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("place", PLACES)
def test_a_word_is_where_the_page_says(place: str) -> None:
    parts = place.split(".")
    for i in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for j, name in enumerate(parts[i:]):
            fields = getattr(found, "__dataclass_fields__", {})
            assert hasattr(found, name) or name in fields, f"{'.'.join(parts[: i + j])} has no {name}"
            found = getattr(found, name, None)
        return
    raise AssertionError(f"no module of {place}")


def test_the_page_has_rows() -> None:
    assert len(PLACES) > 20 and len(REFUSED) > 10


def names(tree: ast.AST) -> set[str]:
    """What a file defines or takes: classes, functions, arguments, fields, variables."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def parts_of(name: str) -> list[str]:
    """`closing_ids` as closing_ids, closing, ids; `TextEnds` as TextEnds, Text, Ends."""
    return [name, *name.strip("_").split("_"), *re.findall(r"[A-Z][a-z]+", name)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_words_that_went_name_nothing(path: Path) -> None:
    used = {part for name in names(ast.parse(path.read_text(encoding="utf-8"))) for part in parts_of(name)}
    assert not used & set(REFUSED)


def test_no_two_classes_share_a_name() -> None:
    found = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, n in found.items() if n > 1] == []
