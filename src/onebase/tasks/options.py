"""Options of adaptation: users give one flat, strict set; options of a task and of a method are defined in their own classes."""

import functools
import json
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from typing import Any, cast, get_type_hints

from onebase.artifact.files import plain
from onebase.artifact.record import Record
from onebase.config import config, from_dict
from onebase.config_errors import type_name
from onebase.config_fields import to_new_names, with_new_names
from onebase.config_plain import to_dict, to_hash
from onebase.errors import ConfigError, UserError
from onebase.methods.method import option
from onebase.methods.table import METHODS, OURS, method_of, takers
from onebase.modality.text.clock import read_date
from onebase.modality.text.ledger import check_codes
from onebase.tasks.option_names import OptionNames


@config
class AdaptOptions:
    """Options of `Base.adapt` for every task and method. Users give the options of the task (`of_task`) and of the method (`of_method`)
    among these."""

    epochs: int = option(3, "passes over the data (unused by methods head and prompt)")
    batch_size: int = option(16, "samples per optimizer step", was="rows")
    lr: float | None = option(None, "peak learning rate of AdamW (default: the method's)")
    micro_batch: int | None = option(
        None, "samples per forward pass, at most; it does not change the result", was="micro"
    )
    max_length: int | None = option(None, "longest sample in tokens (default: the base's context)")
    allow: tuple[str, ...] = option((), "codes of token-ledger findings that do not stop the run")
    seed: int = option(0, "random seed")
    date: str | None = option(
        None, "today's date for chat templates, YYYY-MM-DD (default: the day on which the run began)"
    )
    of_task: Any = None
    of_method: Any = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("micro_batch", 1), ("max_length", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"'{name}' is {value}", f"give at least {least}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ConfigError(f"'lr' is {self.lr}", "give a number above 0")
        if self.date is not None:
            read_date(self.date)
        check_codes(self.allow)


COMMON = tuple(f for f in fields(AdaptOptions) if not f.name.startswith("of_"))
"""The options of every task and method."""
TASK_OPTIONS: dict[str, type[Any]] = {}
"""The class of each task's own options, by the task's name."""


def task_options(task: str) -> type[Any]:
    """The class of a task's own options. Raises UserError for an unknown task."""
    if task not in TASK_OPTIONS:
        raise UserError(f"task {task!r} is not known", f"tasks: {', '.join(TASK_OPTIONS)}")
    return TASK_OPTIONS[task]


def read_options(options: Mapping[str, object], task: str, method: str) -> AdaptOptions:
    """Read options strictly. Raises ConfigError for an unknown one, naming the nearest valid one or the tasks and methods that have it;
    UserError for an unknown task or method."""
    of_task, of_method = task_options(task), method_of(method).options
    classes = {"of_task": of_task, "of_method": of_method}
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    values = with_new_names(AdaptOptions, values, "adapt options")
    option_names().check(values, task, method)
    read = from_dict(_flat(cast(Hashable, of_task), cast(Hashable, of_method)), values, "adapt options")
    try:
        parts = {p: c(**{f.name: getattr(read, f.name) for f in fields(c)}) for p, c in classes.items()}
        return AdaptOptions(**{f.name: getattr(read, f.name) for f in COMMON}, **parts)
    except ConfigError as e:
        raise ConfigError(f"adapt options: {e.cause}", e.remedy) from None


def given_options(options: Mapping[str, object]) -> dict[str, Any]:
    """The options that a user gave, by their current names, as plain data."""
    found = to_new_names(AdaptOptions, plain(options))
    assert isinstance(found, dict)
    return found


def option_names() -> OptionNames:
    """The names of all options, from the tables as they are now (plug-ins included)."""

    def named(cls: type[Any]) -> dict[str, str]:
        hints = get_type_hints(cls)
        return {f.name: type_name(hints[f.name]) for f in fields(cls) if not f.name.startswith("of_")}

    return OptionNames(
        named(AdaptOptions),
        {name: named(c) for name, c in TASK_OPTIONS.items()},
        {name: named(m.options) for name, m in METHODS.items()},
        tuple(f.metadata["was"] for f in COMMON if "was" in f.metadata),
    )


def flat(options: AdaptOptions) -> dict[str, Any]:
    """All options by the names that users give, as plain data."""
    tree = to_dict(options)
    own = (tree.pop("of_task") or {}) | (tree.pop("of_method") or {})
    return tree | own


def as_before(options: AdaptOptions) -> dict[str, Any]:
    """The same for hashes, with defaults of the options of other tasks and methods, which were once part of every job's options."""
    tree = to_hash(options)
    own = (tree.pop("of_task") or {}) | (tree.pop("of_method") or {})
    others = [to_hash(TASK_OPTIONS[t]()) for t in SHARED_TASKS] + [
        to_hash(METHODS[m].options()) for m in OURS
    ]
    return {k: v for each in others for k, v in each.items()} | tree | own


SHARED_TASKS = ("classify", "embed", "prefer", "reinforce", "continue", "distil")
"""Tasks whose options were once those of every task; hashes still have them."""


def those_of(recorded: Mapping[str, Any], task: str, method: str) -> dict[str, Any]:
    """The recorded options that this task and method take; older records have those of every task and method."""
    classes = (task_options(task), method_of(method).options)
    mine = {f.name for f in COMMON} | {f.name for c in classes for f in fields(c)}
    of_tasks = {f.name for c in TASK_OPTIONS.values() for f in fields(c)}
    now = to_new_names(AdaptOptions, recorded)
    return {k: v for k, v in now.items() if k in mine or not (k in of_tasks or takers(k))}


def date_of(record: Record | None) -> str | None:
    """The date that the chat template used in training of the adapter with this record, so that its scores are the same on another day."""
    kept = None if record is None else record.get("config.options")
    date = kept.get("date") if isinstance(kept, dict) else None
    return date if isinstance(date, str) else None


def explained(task: str | None, method: str) -> str:
    """The options of a task with a method and their defaults, as text, the task's own first. task: None leaves out options of tasks.
    Raises UserError for an unknown task or method."""
    parts = [(f"options of method {method}", fields(method_of(method).options))]
    if task is not None:
        parts.insert(0, (f"options of task {task}", fields(task_options(task))))
    out = []
    for title, some in (*parts, ("options of every task and method", COMMON)):
        out.append(title if some else f"{title.removeprefix('options of ')} has no options of its own")
        out += [f"  {f.name} ({_default(f)}): {f.metadata.get('about', '')}".rstrip(": ") for f in some]
    return "\n".join(out)


def _default(one: Field[Any]) -> str:
    value = one.default if one.default_factory is MISSING else one.default_factory()
    value = to_dict(value) if is_dataclass(value) else value
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


@functools.cache
def _flat(of_task: Hashable, of_method: Hashable) -> type[Any]:
    """One class with the common options, a task's and a method's, for reading. Raises ConfigError for a name that two of them have."""
    made: dict[str, Any] = {}
    for owner, some in (("every task", AdaptOptions), ("a task", of_task), ("a method", of_method)):
        assert isinstance(some, type) and is_dataclass(some)
        hints = get_type_hints(some)
        for f in COMMON if some is AdaptOptions else fields(some):
            if f.name in made:
                raise ConfigError(
                    f"the option {f.name!r} of {owner} is already an option of {made[f.name][0]}",
                    "give it another name",
                )
            made[f.name] = (owner, hints[f.name], _copied(f))
    strict = {"__pydantic_config__": {"extra": "forbid", "strict": True}}
    members = [(name, hint, value) for name, (_, hint, value) in made.items()]
    return make_dataclass("AdaptOptions", members, kw_only=True, frozen=True, namespace=strict)


def _copied(one: Field[Any]) -> Any:
    if one.default is not MISSING:
        return field(default=one.default, metadata=one.metadata)
    assert one.default_factory is not MISSING, "every option has a default"
    return field(default_factory=one.default_factory, metadata=one.metadata)
