"""Names of tasks, methods and options for help and checks. Without plug-ins they are listed here, because the tables import torch, which takes
seconds. A test checks that both are equal."""

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
        *("prefer", "reward", "reinforce", "continue", "distil", "transcribe", "caption", "draw", "segment"),
        "contacts",
    ),
    "methods": ("prompt", "head", "lora", "soft", "prefix", "full"),
    "scored": (
        *("classify", "regress", "tag", "complete", "chat", "embed", "rerank", "extract"),
        *(
            "prefer",
            "reward",
            "reinforce",
            "continue",
            "transcribe",
            "caption",
            "draw",
            "segment",
            "contacts",
            "text",
        ),
    ),
    "judged": ("prefer", "reinforce"),
    "applied": (
        "classify",
        "regress",
        "tag",
        "rerank",
        "extract",
        "reward",
        "transcribe",
        "caption",
        "draw",
        "contacts",
    ),
}
OPTIONS = Path(__file__).with_name("options.json")
"""Common options and those of each task and method, copied from the tables; `python -m onebase.cli.names` regenerates the file."""


def usage_hint(refused: str, options: Collection[str]) -> str:
    """What to write instead, for a usage error of a command with these options (refused: the parser's message); "" if unknown."""
    if (match := re.fullmatch(r"No such option: --([a-z][\w-]*)", refused)) and "--method" in options:
        from onebase.tasks.option_names import OTHER_NAMES

        name = match[1].replace("-", "_")
        known = option_names()
        name = OTHER_NAMES.get(name, name)
        tables = (known.common, *known.tasks.values(), *known.methods.values())
        return f"; write -o {name}=VALUE" if any(name in t for t in tables) else ""
    match = re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((\S+)\)", refused)
    if match and "--data" in options and Path(match[1]).suffix:
        return f"; give a data file as --data {match[1]}"
    return ""


def names() -> dict[str, tuple[str, ...]]:
    """Names of tasks and methods, those of plug-ins included."""
    return from_tables() if with_plugins() else BUILT_IN


def option_names() -> "OptionNames":
    """Names of the options of adaptation, those of plug-ins included."""
    from onebase.tasks.option_names import OptionNames

    return OptionNames(**json.loads(OPTIONS.read_bytes())) if not with_plugins() else options_of_tables()


def options_of_tables() -> "OptionNames":
    """Names of options, read from the tables."""
    import onebase.tasks.table  # noqa: F401  # fills the table of tasks' options
    from onebase.tasks.options import option_names as from_classes

    return from_classes()


def with_plugins() -> bool:
    """Are plug-ins installed? If so, loads them into the tables."""
    from importlib.metadata import entry_points

    if not entry_points(group=GROUP):
        return False
    import onebase.api  # noqa: F401  # loads the plug-ins

    return True


def from_tables() -> dict[str, tuple[str, ...]]:
    """Names of tasks and methods, read from the tables."""
    from onebase.tasks.table import METHODS, PREDICTIONS, TASKS

    return {
        "tasks": tuple(TASKS),
        "methods": tuple(METHODS),
        "scored": tuple(PREDICTIONS),
        "judged": tuple(t.name for t in TASKS.values() if t.takes_judge),
        "applied": tuple(t.name for t in TASKS.values() if t.answer),
    }


if __name__ == "__main__":
    OPTIONS.write_text(json.dumps(asdict(options_of_tables()), indent=1) + "\n", encoding="utf-8")
