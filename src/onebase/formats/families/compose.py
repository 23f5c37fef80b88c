"""Composes a text decoder and an image tower from one config. Each part is read, written and named by its own family."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from onebase.base.config import BaseConfig
from onebase.base.links import ConnectorConfig, connector_places
from onebase.errors import ConfigError
from onebase.formats.families.single import SINGLE, family_among
from onebase.formats.families.towers import half, moved
from onebase.formats.family import Family, Tree, written
from onebase.formats.fields import Found, Table, View
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Rules

FIRST: Mapping[str, Tree] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "qwen2": {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 151936,
    },
    "gemma3_text": {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "vocab_size": 262208,
    },
}
"""Sizes that the config of a part may omit because they are the defaults of its class."""


def read_text(r: ConfigReader, how: "TextTrunkPart") -> BaseConfig:
    """The decoder in `text_config`. Raises ConfigError if its input is more than token embeddings: the effect on image vectors is not known."""
    data, where = r.get("text_config", dict), f"{r.where}: text_config"
    if "text_config" in data:
        raise ConfigError(
            f"{where} has its own 'text_config'", "it must be the config of a text-only decoder"
        )
    family = family_among(SINGLE, data.get("model_type", how.default), where)
    whole = FIRST.get(family.model_types[0], {}) | data
    tied = r.get("tie_word_embeddings", bool, how.tied)
    if tied or not how.own_tie:
        whole["tie_word_embeddings"] = tied
    reader = ConfigReader(whole, where, frozenset(_alone(r.tensors, how.begins)))
    text = reader.checked(lambda: family.read(reader))
    codec = text.codecs.get("text")
    plain = codec is not None and (how.scaled or text.text.scale is None) and text.text.dropped is None
    if not plain or text.text.positions or text.text.types or text.trunks["text"].direction != "causal":
        raise reader.refuse("model_type", "a decoder whose input is token embeddings alone")
    if not text.text.head:
        raise ConfigError(f"{where}: the checkpoint has no lm_head", "use a checkpoint that predicts tokens")
    _same_names(text, family, reader)
    return text


def _alone(names: frozenset[str], begins: Mapping[str, str]) -> Iterator[str]:
    for name in names:
        begin = next((b for b in begins if name.startswith(b)), None)
        yield name if begin is None else begins[begin] + name.removeprefix(begin)


def _same_names(part: BaseConfig, family: Family, r: ConfigReader) -> None:
    """Refuse a family whose tensor names differ from those of the family that would write this part."""
    if list(family.rules(part)) != list(layout(part).rules(part)):
        raise r.refuse("model_type", f"here it is written as {layout(part).model_types[0]}")


def read_image(r: ConfigReader, default: str) -> BaseConfig:
    """The tower in `vision_config`, by its `model_type`."""
    data = r.get("vision_config", dict)
    where = f"{r.where}: vision_config"
    family, reader = family_among(SINGLE, data.get("model_type", default), where), ConfigReader(data, where)
    image = reader.checked(lambda: family.read(reader))
    if set(image.codecs) != {"image"}:
        raise reader.refuse("model_type", "that of an image tower")
    _same_names(image, family, reader)
    return image


def layout(part: BaseConfig) -> Family:
    """The first family that can express a part. Raises ConfigError if none can."""
    refused: ConfigError | None = None
    for family in SINGLE:
        try:
            written(family, part)
        except ConfigError as e:
            refused = refused or e
        else:
            return family
    raise refused or ConfigError("no layout can express a part of this base", "export it to another format")


@dataclass(frozen=True)
class TextTrunkPart:
    """The decoder in `text_config`. begins: prefixes of its tensor names in the whole model, and alone; own_tie: its own `tie_word_embeddings`
    counts in addition to that of the whole model; tied: default of the latter; default: of its `model_type`; scaled: token embeddings may be
    scaled (image vectors are not)."""

    begins: Mapping[str, str]
    own_tie: bool = False
    tied: bool = False
    default: str = "llama"
    scaled: bool = False

    def read(self, r: ConfigReader, found: Found) -> None:
        found.setdefault("parts", []).append(read_text(r, self))

    def write(self, base: View, tree: Tree) -> None:
        part = half(base.cfg, "text")
        tree |= {"text_config": written(layout(part), part), "tie_word_embeddings": base.cfg.text.tied}


@dataclass(frozen=True)
class ImagePart:
    """The tower in `vision_config`, by its `model_type`; `default` if the key is missing."""

    default: str

    def read(self, r: ConfigReader, found: Found) -> None:
        found.setdefault("parts", []).append(read_image(r, self.default))

    def write(self, base: View, tree: Tree) -> None:
        part = half(base.cfg, "image")
        tree["vision_config"] = written(layout(part), part)


@dataclass(frozen=True)
class ImageToken:
    """The token whose positions hold image vectors, from the first of the keys that is there; the last key is written."""

    keys: tuple[str, ...]
    default: int

    def read(self, r: ConfigReader, found: Found) -> None:
        key = next((key for key in self.keys if r.has(key)), self.keys[-1])
        token, vocabulary = r.get(key, int, self.default), found["parts"][0].text.vocab_size
        if not 0 <= token < vocabulary:
            raise r.refuse(key, f"a token of the vocabulary, 0 to {vocabulary - 1}")
        found["link.connector.token"] = token

    def write(self, base: View, tree: Tree) -> None:
        tree[self.keys[-1]] = base["link.connector.token"]


class OneMatrix:
    """A connector of one matrix that reads all states after the last norm; other connectors belong to other layouts."""

    def read(self, r: ConfigReader, found: Found) -> None:
        pass

    def write(self, base: View, tree: Tree) -> None:
        connector = the_connector(base.cfg)
        if connector.hidden is not None or connector.block is not None or connector.skip:
            raise ConfigError(
                f"the connector reads block {connector.block}, skips {connector.skip} positions and has hidden size {connector.hidden}",
                "this layout needs a connector of one matrix that reads all states after the last norm",
            )


def read_whole(r: ConfigReader, table: Table) -> BaseConfig:
    """The base of a table. Also raises ConfigError if its connector does not match the patches."""
    cfg = table.read(r)
    r.checked(lambda: connector_places(the_connector(cfg), cfg.image))
    return cfg


def part_rules(cfg: BaseConfig, kind: Literal["text", "image"]) -> Rules:
    """The rules of a part: of the decoder with its head, or of the tower."""
    part = half(cfg, kind)
    family = layout(part)
    rules = family.rules(part)
    return moved(rules, {family.prefix: ""}) if kind == "image" and family.prefix else rules


def the_connector(cfg: BaseConfig) -> ConnectorConfig:
    """The connector of the only link."""
    connector = cfg.links[0].connector
    assert connector is not None
    return connector
