"""Defines a family: how a foreign config is read and written, and one list of tensor rules. `model_type` selects it, then only values decide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from onebase.base.config import BaseConfig
from onebase.base.links import Link
from onebase.config_plain import to_dict
from onebase.errors import ConfigError
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Rule, Rules
from onebase.modality.image.config import ImageCodecConfig, PixelsConfig
from onebase.modality.kinds import CodecConfig
from onebase.modality.latents.config import LatentsConfig, NoiseConfig
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.config import TextCodecConfig
from onebase.model.config import InitConfig
from onebase.trees import differences

Tree = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """read: their config as ours; raises ConfigError for unsupported values. write: our config as theirs, as far as the format can express it
    (`written` finds the rest); raises ConfigError for a base of a different shape; any other error is a bug. rules: between their tensors and
    ours, with the names of a model with its head. prefix: of the trunk's tensor names; missing if the trunk was saved without its head.
    checkpoint_prefixes: (theirs, that of the rules), for checkpoints of other savers; each part of a model may have its own. with_tokenizer:
    adds to the config the values that only the tokenizer has. beside: other JSON files of an exported base. memory: (pattern, replacement),
    regular expressions applied in order: from names in a file to module names in memory in transformers 5, where they differ; words joined
    with | in the last part are separate modules there."""

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
    """The config without the values that a foreign config does not have: initialisation, and image preprocessing, noise and names of
    classes, which have their own files."""
    trunks = {name: replace(t, init=InitConfig()) for name, t in cfg.trunks.items()}
    return replace(cfg, trunks=trunks, codecs={name: _plain_codec(c) for name, c in cfg.codecs.items()})


def without_tokenizer(cfg: BaseConfig) -> BaseConfig:
    """The config without the values that only a tokenizer has."""
    return replace(cfg, links=tuple(_plain_link(x) for x in cfg.links))


def _plain_link(link: Link) -> Link:
    if link.connector is None:
        return link
    return replace(link, connector=replace(link.connector, before=(), after=()))


def _plain_codec(codec: CodecConfig) -> CodecConfig:
    if isinstance(codec, TextCodecConfig):
        return replace(codec, embed_std=0.02, head_std=0.02)
    if isinstance(codec, ImageCodecConfig):
        return replace(codec, pixels=PixelsConfig(), starts="random")
    if isinstance(codec, LatentsConfig):
        return replace(codec, noise=NoiseConfig(), names=())
    return codec


def written(family: Family, cfg: BaseConfig) -> Tree:
    """The foreign config of a base, checked by reading it back. Raises ConfigError with the value that the format cannot express."""
    what = f"the {family.model_types[0]} layout cannot express"
    remedy = "export a base without it (recipes with `portable: true` train such bases), or export to another format"
    tree = family.write(cfg)
    names = frozenset(n for r in family.rules(cfg) if isinstance(r, Rule) for n in r.theirs)
    try:
        again = family.read(ConfigReader(tree, "the exported config", names))
    except ConfigError as e:
        raise ConfigError(f"{what} this base: {e.cause}", remedy) from None
    wanted = plain(without_tokenizer(cfg) if family.with_tokenizer else cfg)
    if plain(again) != wanted:
        name, ours, theirs = next(differences(to_dict(wanted), to_dict(plain(again))))
        raise ConfigError(f"{what} {name} = {_short(ours)} (there it means {_short(theirs)})", remedy)
    return tree


def _short(value: Any) -> str:
    return value if len(value := repr(value)) <= 100 else value[:100] + " ..."
