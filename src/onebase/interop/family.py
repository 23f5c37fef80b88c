"""A family: a config out of theirs and back, and one list of rules. A checkpoint's `model_type` picks it; after that only values decide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig
from onebase.config import to_dict
from onebase.errors import ConfigError
from onebase.interop.reader import Reader
from onebase.interop.rules import Rule, Rules
from onebase.model.config import InitConfig

Tree = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """read: their config as ours (raises ConfigError for what we lack). write: ours as theirs, as well as the format can say it;
    `written` finds what it could not say. rules: between their tensors and ours, by the names of a model with its head.
    prefix: what the trunk's tensors begin with there; a trunk saved without its head lacks it. spellings: (theirs, that of the
    rules), how names begin in checkpoints of other savers."""

    model_types: tuple[str, ...]
    read: Callable[[Reader], BaseConfig]
    write: Callable[[BaseConfig], Tree]
    rules: Callable[[BaseConfig], Rules]
    prefix: str = ""
    spellings: tuple[tuple[str, str], ...] = ()


def plain(cfg: BaseConfig) -> BaseConfig:
    """The config without how its weights once started: that is not in a foreign checkpoint."""
    trunks = {name: replace(t, init=InitConfig()) for name, t in cfg.trunks.items()}
    codecs = {
        name: replace(c, embed_std=0.02, head_std=0.02) if isinstance(c, TextCodecConfig) else c
        for name, c in cfg.codecs.items()
    }
    return replace(cfg, trunks=trunks, codecs=codecs)


def written(family: Family, cfg: BaseConfig) -> Tree:
    """The foreign config of a base, proved by reading it back. Raises ConfigError naming what the format cannot express."""
    what = f"the {family.model_types[0]} layout cannot express"
    remedy = "export a base without it (recipes with `portable: true` make such), or to another format"
    tree = family.write(cfg)
    names = frozenset(n for r in family.rules(cfg) if isinstance(r, Rule) for n in r.theirs)
    try:
        found = family.read(Reader(tree, "the exported config", names))
    except ConfigError as e:
        raise ConfigError(f"{what} this base: {e.cause}", remedy) from None
    wanted = plain(cfg)
    if plain(found) != wanted:
        name, ours, theirs = _first_difference(to_dict(wanted), to_dict(plain(found)))
        raise ConfigError(f"{what} {name} = {ours!r} (there it means {theirs!r})", remedy)
    return tree


def _first_difference(a: Any, b: Any, name: str = "") -> tuple[str, Any, Any]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                return _first_difference(a.get(key), b.get(key), f"{name}.{key}".lstrip("."))
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if x != y:
                return _first_difference(x, y, f"{name}.{i}")
    return name, a, b
