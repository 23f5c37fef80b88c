"""Tasks, methods and options by name, for help and for checks: without plug-ins these need not wait seconds for the tables, which import torch. A
test holds both equal."""

import re
from collections.abc import Collection
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
WHOLE, NUMBER, NULL, TEXT, SWITCH = (
    "whole number",
    "number",
    " or nothing (null)",
    "text",
    "true or false",
)
POOLING = {"pooling": "one of last, mean, both, all, cls or one of vector or one of auto"}
VIRTUAL = {"virtual": WHOLE, "soft_text": TEXT + NULL}
COMMON = {
    "epochs": WHOLE,
    "batch_size": WHOLE,
    "lr": NUMBER + NULL,
    "micro_batch": WHOLE + NULL,
    "max_length": WHOLE + NULL,
    "allow": "list of text",
    "seed": WHOLE,
    "date": TEXT + NULL,
}
WAS = ("rows", "micro")
OF_TASKS: dict[str, dict[str, str]] = {
    **{task: {} for task in BUILT_IN["tasks"]},
    "classify": {**POOLING, "contrast": "map with keys first, temperature"},
    "regress": POOLING,
    "embed": {"temperature": NUMBER, "symmetric": SWITCH},
    "rerank": POOLING,
    "prefer": {"prefer": "map with keys loss, beta, smoothing"},
    "reward": POOLING,
    "reinforce": {
        "reinforce": "map with keys how, reward, group, max_tokens, stop, passes, parts, clip, kl, advantages, length, gamma, lam, value, success"
    },
    "continue": {"replay": "map with keys data, share, test"},
    "distil": {
        **POOLING,
        "distil": "map with keys teacher, adapter, level, temperature, direction, hard, hidden, max_tokens, sample",
    },
}
OF_METHODS: dict[str, dict[str, str]] = {
    "prompt": {
        "prompt": "text or list of map of name to text",
        "answers": "map of name to text" + NULL,
        "shots": "map with keys n, select, example, between",
        "compare": "map with keys calibration, mean",
    },
    "head": {},
    "lora": {
        "rank": WHOLE,
        "alpha": NUMBER,
        "sites": "list of text",
        "ranks": "map of name to whole number" + NULL,
        "alphas": "map of name to number" + NULL,
        "rslora": SWITCH,
        "dora": SWITCH,
    },
    "soft": VIRTUAL,
    "prefix": VIRTUAL,
    "full": {},
}


def usage_hint(refused: str, options: Collection[str]) -> str:
    """What to write in the place of words that a command with these options refuses, by the parser's message; "" where nothing tells."""
    from onebase.tasks.option_names import OTHER_NAMES

    if (found := re.fullmatch(r"No such option: --([a-z][\w-]*)", refused)) and "--option" in options:
        name = found[1].replace("-", "_")
        name = OTHER_NAMES.get(name, name)
        own = {
            **COMMON,
            **{k: v for each in (*OF_TASKS.values(), *OF_METHODS.values()) for k, v in each.items()},
        }
        return f"; write -o {name}=VALUE" if name in own else ""
    if (
        found := re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((\S+)\)", refused)
    ) and "--data" in options:
        return f"; a file of rows is given by --data {found[1]}" if Path(found[1]).suffix else ""
    return ""


def names() -> dict[str, tuple[str, ...]]:
    """Of the tables, what plug-ins bring among it."""
    return from_tables() if with_plugins() else BUILT_IN


def option_names() -> "OptionNames":
    """The names of the options of adaptation, those that plug-ins bring among them."""
    from onebase.tasks.option_names import OptionNames

    if not with_plugins():
        return OptionNames(COMMON, OF_TASKS, OF_METHODS, WAS)
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
