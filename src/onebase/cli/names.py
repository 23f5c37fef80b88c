"""Tasks, methods and options by name, for help and for checks: without plug-ins these need not wait seconds for the tables, which import torch. A
test holds both equal."""

import json
import re
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from onebase.plugins import GROUP

if TYPE_CHECKING:
    from onebase.tasks.option_names import OptionNames

BUILT_IN = {
    "tasks": (
        *("classify", "regress", "tag", "complete", "chat", "embed", "rerank", "extract"),
        *("prefer", "reward", "reinforce", "continue", "distil"),
    ),
    "methods": ("prompt", "head", "lora", "soft", "prefix", "full"),
    "scored": (
        *("classify", "regress", "tag", "complete", "chat", "embed", "rerank", "extract"),
        *("prefer", "reward", "reinforce", "continue", "text"),
    ),
    "judged": ("prefer", "reinforce"),
    "asked": ("classify", "regress", "tag", "rerank", "extract", "reward"),
}
OPTIONS = Path(__file__).with_name("options.json")
"""The options of every task and method, of each task and of each method, as the tables have them: `python -m onebase.cli.names` writes it anew."""


def usage_hint(refused: str, options: Collection[str]) -> str:
    """What to write in the place of words that a command with these options refuses, by the parser's message; "" where nothing tells."""
    if (found := re.fullmatch(r"No such option: --([a-z][\w-]*)", refused)) and "--method" in options:
        from onebase.tasks.option_names import OTHER_NAMES

        name = found[1].replace("-", "_")
        known = option_names()
        name = OTHER_NAMES.get(name, name)
        tables = (known.common, *known.tasks.values(), *known.methods.values())
        return f"; write -o {name}=VALUE" if any(name in t for t in tables) else ""
    found = re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((\S+)\)", refused)
    if found and "--data" in options and Path(found[1]).suffix:
        return f"; a file of rows is given by --data {found[1]}"
    return ""


def names() -> dict[str, tuple[str, ...]]:
    """Of the tables, what plug-ins bring among it."""
    return from_tables() if with_plugins() else BUILT_IN


def option_names() -> "OptionNames":
    """The names of the options of adaptation, those that plug-ins bring among them."""
    from onebase.tasks.option_names import OptionNames

    return OptionNames(**json.loads(OPTIONS.read_bytes())) if not with_plugins() else options_of_tables()


def options_of_tables() -> "OptionNames":
    """As the tables have them now."""
    import onebase.tasks.table  # noqa: F401  # fills the table of tasks' options
    from onebase.tasks.options import option_names as found

    return found()


def with_plugins() -> bool:
    """Are there plug-ins? They are in the tables then."""
    from importlib.metadata import entry_points

    if not entry_points(group=GROUP):
        return False
    import onebase.api  # noqa: F401  # they register themselves there

    return True


def from_tables() -> dict[str, tuple[str, ...]]:
    """As the tables have them now."""
    from onebase.tasks.table import METHODS, PREDICTIONS, TASKS

    return {
        "tasks": tuple(TASKS),
        "methods": tuple(METHODS),
        "scored": tuple(PREDICTIONS),
        "judged": tuple(t.name for t in TASKS.values() if t.takes_judge),
        "asked": tuple(t.name for t in TASKS.values() if t.answer),
    }


if __name__ == "__main__":
    OPTIONS.write_text(json.dumps(asdict(options_of_tables()), indent=1) + "\n", encoding="utf-8")
