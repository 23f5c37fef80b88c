"""Tasks and methods by name, for help: without plug-ins it need not wait seconds for the tables, which import torch. A test holds both equal."""

from importlib.metadata import entry_points

from onebase.plugins import GROUP

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


def names() -> dict[str, tuple[str, ...]]:
    """Of the tables, what plug-ins bring among it."""
    return from_tables() if entry_points(group=GROUP) else BUILT_IN


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
