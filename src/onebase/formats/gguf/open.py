"""Opens a GGUF file: config, weights decoded while loading, tokenizer and chat template."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
import torch

from onebase.base.config import BaseConfig
from onebase.base.model import BaseModel
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.family import Family
from onebase.formats.gguf.families import FAMILIES
from onebase.formats.gguf.keys import plain, read_pooling
from onebase.formats.gguf.rotary import TABLES
from onebase.formats.gguf.source import GGUFFile
from onebase.formats.gguf.vocab import read_tokenizer
from onebase.formats.reader import ConfigReader
from onebase.formats.weight_loading import load_weights
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.modality.text.roles import Roles

MAX_TABLE = 4096
"""Maximum rotary angles of a head."""


@dataclass(frozen=True)
class OpenedGGUF:
    """The content of a file. template: Jinja source of its chat template, or None; unread: keys that were not read; kinds: number of tensors by
    stored type; files: its parts; embedding: pooling of text embeddings, if it has any; general: the keys `general.*`."""

    cfg: BaseConfig
    model: BaseModel
    tokenizer: tokenizers.Tokenizer
    roles: Roles
    template: str | None
    unread: tuple[str, ...]
    architecture: str
    kinds: dict[str, int]
    files: tuple[Path, ...]
    embedding: EmbeddingConfig | None = None
    general: Mapping[str, Any] = field(default_factory=dict)


def open_gguf(path: str | Path, *, dtype: torch.dtype | None = None) -> OpenedGGUF:
    """Read a .gguf file, or the first of its parts. Weights become `dtype`, or keep their stored dtype (quantized ones become float32).

    Raises ArtifactError for a damaged file, ConfigError for features that the trunk lacks.
    """
    source = GGUFFile(Path(path))
    r = reader_of(source)
    family = family_of(r)
    cfg = r.checked(lambda: family.read(r))
    embedding = read_pooling(r, family.model_types[0])
    inner, roles = read_tokenizer(r)
    rows = len(r.get("tokenizer.ggml.tokens", list))
    if rows > cfg.text.vocab_size:
        raise ArtifactError(
            f"{r.where}: {rows:,} tokens, but {cfg.text.vocab_size:,} rows of embeddings", "use another file"
        )
    template = r.get("tokenizer.chat_template", str, "") or None
    model = load_weights(cfg, family, source, dtype=dtype)
    kinds = dict(sorted(Counter(source.kinds().values()).items()))
    general = {k: v for k, v in source.metadata.items() if k.startswith("general.")}
    unread = tuple(k for k in r.unread if not k.startswith("general."))
    return OpenedGGUF(
        cfg,
        model,
        inner,
        roles,
        template,
        unread,
        family.model_types[0],
        kinds,
        source.files,
        embedding,
        general,
    )


def reader_of(source: GGUFFile) -> ConfigReader:
    """The metadata, with the values that only tensors have (see `TABLES`)."""
    data: dict[str, Any] = {k: v for k, v in plain(source.metadata).items() if k not in TABLES}
    shapes = source.shapes()
    for name in TABLES:
        if name in shapes:
            if len(shapes[name]) != 1 or shapes[name][0] > MAX_TABLE:
                raise ArtifactError(
                    f"{source.where}: tensor {name!r} has shape {list(shapes[name])}",
                    "it must be a list of divisors of rotary angles",
                )
            data[name] = [float(x) for x in source.read(name)]
            if not all(0 < x < float("inf") for x in data[name]):
                raise ArtifactError(
                    f"{source.where}: tensor {name!r} has a divisor that is not a positive number",
                    "use another file",
                )
    return ConfigReader(data, source.where, frozenset(shapes))


def family_of(r: ConfigReader) -> Family:
    """The family of `general.architecture`. Raises ConfigError that lists the supported ones."""
    name = r.get("general.architecture", str)
    for family in FAMILIES:
        if name in family.model_types:
            return family
    known = ", ".join(t for f in FAMILIES for t in f.model_types)
    raise ConfigError(f"{r.where}: general.architecture {name!r} is not supported", f"supported: {known}")
