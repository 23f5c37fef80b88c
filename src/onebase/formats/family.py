"""A family: a config out of theirs and back, and one list of rules. A checkpoint's `model_type` picks it; after that only values decide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from onebase.base.config import BaseConfig
from onebase.base.links import Link
from onebase.codec.image.config import ImageCodecConfig, PixelsConfig
from onebase.codec.kinds import CodecConfig
from onebase.codec.text.codec import TextCodec
from onebase.codec.text.config import TextCodecConfig
from onebase.config_plain import to_dict
from onebase.errors import ConfigError
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Rule, Rules
from onebase.model.config import InitConfig
from onebase.trees import differences

Tree = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """read: their config as ours (raises ConfigError for what we lack). write: ours as theirs, as well as the format can say it;
    `written` finds what it could not say. It raises ConfigError for a base of another shape altogether; another error is a bug. rules: between their tensors and ours, by the names of a model with its head.
    prefix: what the trunk's tensors begin with there; a trunk saved without its head lacks it. spellings: (theirs, that of the
    rules), how names begin in checkpoints of other savers; of a model with several parts each may have its own. told: the config with what
    only the tokenizer says. beside: other files of JSON that belong to an exported base. memory: (pattern, replacement) of regular
    expressions, one behind the other: from names in a file to those of modules of transformers 5 in memory, where the two differ; last words
    with | between them are modules of their own there."""

    model_types: tuple[str, ...]
    read: Callable[[ConfigReader], BaseConfig]
    write: Callable[[BaseConfig], Tree]
    rules: Callable[[BaseConfig], Rules]
    prefix: str = ""
    checkpoint_prefixes: tuple[tuple[str, str], ...] = ()
    with_tokenizer: Callable[[BaseConfig, TextCodec], BaseConfig] | None = None
    beside: Callable[[BaseConfig], Mapping[str, Tree]] | None = None
    memory: tuple[tuple[str, str], ...] = ()


def plain(cfg: BaseConfig) -> BaseConfig:
    """The config without what stands elsewhere: how its weights once started, which is not in a foreign checkpoint, and how pictures are
    prepared, which has a file of its own there."""
    trunks = {name: replace(t, init=InitConfig()) for name, t in cfg.trunks.items()}
    return replace(cfg, trunks=trunks, codecs={name: _plain_codec(c) for name, c in cfg.codecs.items()})


def without_tokenizer(cfg: BaseConfig) -> BaseConfig:
    """The config without what only a tokenizer says."""
    return replace(cfg, links=tuple(_plain_link(x) for x in cfg.links))


def _plain_link(link: Link) -> Link:
    if link.connector is None:
        return link
    return replace(link, connector=replace(link.connector, before=(), after=()))


def _plain_codec(codec: CodecConfig) -> CodecConfig:
    if isinstance(codec, TextCodecConfig):
        return replace(codec, embed_std=0.02, head_std=0.02)
    if isinstance(codec, ImageCodecConfig):
        return replace(codec, pixels=PixelsConfig())
    return codec


def written(family: Family, cfg: BaseConfig) -> Tree:
    """The foreign config of a base, proved by reading it back. Raises ConfigError naming what the format cannot express."""
    what = f"the {family.model_types[0]} layout cannot express"
    remedy = "export a base without it (recipes with `portable: true` make such), or to another format"
    tree = family.write(cfg)
    names = frozenset(n for r in family.rules(cfg) if isinstance(r, Rule) for n in r.theirs)
    try:
        found = family.read(ConfigReader(tree, "the exported config", names))
    except ConfigError as e:
        raise ConfigError(f"{what} this base: {e.cause}", remedy) from None
    wanted = plain(without_tokenizer(cfg) if family.with_tokenizer else cfg)
    if plain(found) != wanted:
        name, ours, theirs = next(differences(to_dict(wanted), to_dict(plain(found))))
        raise ConfigError(f"{what} {name} = {_short(ours)} (there it means {_short(theirs)})", remedy)
    return tree


def _short(value: Any) -> str:
    return value if len(value := repr(value)) <= 100 else value[:100] + " ..."
