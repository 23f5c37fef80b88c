"""Options of adaptation: one flat, strict set for Python and the command line, of which each method's stand in the method's own class."""

import functools
import json
from collections.abc import Hashable
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from typing import Any, cast, get_type_hints

from onebase.codec.text.clock import read_date
from onebase.codec.text.ledger import check_codes
from onebase.config import config, from_dict, to_dict, to_hash
from onebase.config_fields import to_new_names, with_new_names
from onebase.data.mixed import ReplayConfig
from onebase.errors import ConfigError
from onebase.methods.head import Chosen
from onebase.methods.method import option
from onebase.methods.table import METHODS, OURS, method_of, takers
from onebase.objective.distil import DistilConfig
from onebase.objective.grouped import ContrastConfig
from onebase.objective.policy import ReinforceConfig
from onebase.objective.preference import PreferConfig


@config
class AdaptOptions:
    """What `Base.adapt` takes beside data, task and method. `own` are the options of the method, which users write among these."""

    epochs: int = option(
        3, "passes over the data (not used by a head, which is solved exactly, nor by a prompt)"
    )
    batch_size: int = option(16, "samples in an optimizer step", was="rows")
    lr: float | None = option(None, "AdamW's peak rate; the method's own when not given")
    micro_batch: int | None = option(
        None,
        "samples read at a time, at most; what is learnt does not depend on it",
        was="micro",
    )
    pooling: Chosen = option("auto", "which hidden states a head reads")
    head_bias: bool = option(
        True,
        "classify, regress, rerank of texts: whether a head has a bias; decoders' classes of transformers have none",
        later=True,
    )
    temperature: float = option(0.05, "task embed: cosines are divided by it")
    symmetric: bool = option(False, "task embed: positives must find their anchors too")
    contrast: ContrastConfig = option(ContrastConfig(), "task classify: whether vectors are learnt first")
    prefer: PreferConfig = option(PreferConfig(), "task prefer: the loss and what it hangs on")
    replay: ReplayConfig = option(ReplayConfig(), "task continue: general text that is read on the side")
    distil: DistilConfig = option(DistilConfig(), "task distil: the teacher and how it is learnt from")
    reinforce: ReinforceConfig = option(
        ReinforceConfig(), "task reinforce: the reward and how it is learnt from"
    )
    max_length: int | None = option(None, "longest sample in tokens; the base's context when not given")
    allow: tuple[str, ...] = option((), "codes of the token ledger's findings that do not stop it")
    seed: int = option(0, "of all that is drawn")
    date: str | None = option(
        None,
        "what a chat template finds for today, YYYY-MM-DD; the day on which the run began when not given",
    )
    own: Any = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("micro_batch", 1), ("max_length", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"'{name}' is {value}", f"give at least {least}")
        if not self.head_bias and self.pooling in ("auto", "vector"):
            raise ConfigError(
                f"'head_bias' is false and 'pooling' is {self.pooling!r}", "name a pooling, such as last"
            )
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"'temperature' is {self.temperature}", "give a number above 0")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ConfigError(f"'lr' is {self.lr}", "give a number above 0")
        if self.date is not None:
            read_date(self.date)
        check_codes(self.allow)


COMMON = tuple(f for f in fields(AdaptOptions) if f.name != "own")
"""The options that do not hang on the method."""


def read_options(options: dict[str, object], method: str) -> AdaptOptions:
    """Strict: an unknown option names the nearest valid one, one of another method those methods. Raises ConfigError, UserError."""
    own = method_of(method)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    plain = with_new_names(AdaptOptions, plain, "adapt options")
    known = {f.name for f in COMMON} | set(own.option_names)
    for name in plain.keys() - known:
        if others := takers(name):
            has = f"its own: {', '.join(own.option_names)}" if own.option_names else "it has none of its own"
            raise ConfigError(
                f"method {method} has no option {name!r}: {', '.join(others)} {'has' if len(others) == 1 else 'have'} it",
                f"leave it out, or give another method ({has})",
            )
    read = from_dict(_flat(cast(Hashable, own.options)), plain, "adapt options")
    try:
        mine = own.options(**{n: getattr(read, n) for n in own.option_names})
        return AdaptOptions(**{f.name: getattr(read, f.name) for f in COMMON}, own=mine)
    except ConfigError as e:
        raise ConfigError(f"adapt options: {e.cause}", e.remedy) from None


def flat(options: AdaptOptions) -> dict[str, Any]:
    """All options by the names that users write, as plain data."""
    tree = to_dict(options)
    return tree | (tree.pop("own") or {})


def as_before(options: AdaptOptions) -> dict[str, Any]:
    """The same for hashes, with the defaults of our other methods' options: what they were taken of before methods had options of their own."""
    tree = to_hash(options)
    own = tree.pop("own") or {}
    others = [to_hash(METHODS[name].options()) for name in OURS]
    return {k: v for each in others for k, v in each.items()} | tree | own


def those_of(recorded: dict[str, Any], method: str) -> dict[str, Any]:
    """Of options that a record has, perhaps from before methods had their own, those that this method takes."""
    mine = {f.name for f in COMMON} | set(method_of(method).option_names)
    now = to_new_names(AdaptOptions, recorded)
    return {k: v for k, v in now.items() if k in mine or not takers(k)}


def explained(method: str) -> str:
    """The options that a method takes with their defaults, its own first, as text. Raises UserError for a method that is not known."""
    own = method_of(method)
    parts = ((f"options of method {method}", fields(own.options)), ("options of every method", COMMON))
    out = []
    for title, some in parts:
        out.append(title if some else f"method {method} has no options of its own")
        out += [f"  {f.name} ({_default(f)}): {f.metadata.get('about', '')}".rstrip(": ") for f in some]
    return "\n".join(out)


def _default(one: Field[Any]) -> str:
    value = one.default if one.default_factory is MISSING else one.default_factory()
    value = to_dict(value) if is_dataclass(value) else value
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


@functools.cache
def _flat(own: Hashable) -> type[Any]:
    """One class of the common options and a method's, to read them by. Raises ConfigError for a name that both have."""
    assert isinstance(own, type) and is_dataclass(own)
    if both := {f.name for f in COMMON} & {f.name for f in fields(own)}:
        raise ConfigError(f"a method calls an option {min(both)!r}, which all have", "give it another name")
    hints = get_type_hints(own) | get_type_hints(AdaptOptions)
    made = [(f.name, hints[f.name], _copied(f)) for f in (*COMMON, *fields(own))]
    strict = {"__pydantic_config__": {"extra": "forbid", "strict": True}}
    return make_dataclass("AdaptOptions", made, kw_only=True, frozen=True, namespace=strict)


def _copied(one: Field[Any]) -> Any:
    if one.default is not MISSING:
        return field(default=one.default, metadata=one.metadata)
    assert one.default_factory is not MISSING, "every option has a default"
    return field(default_factory=one.default_factory, metadata=one.metadata)
