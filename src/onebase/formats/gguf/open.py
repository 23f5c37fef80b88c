"""A GGUF file opened: config, weights decoded as they are placed, tokenizer and chat template."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
import torch

from onebase.base.config import BaseConfig
from onebase.base.model import BaseModel
from onebase.codec.text.pooling import EmbeddingConfig
from onebase.codec.text.roles import Roles
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.family import Family
from onebase.formats.gguf.families import FAMILIES
from onebase.formats.gguf.keys import plain, read_pooling
from onebase.formats.gguf.rotary import TABLES
from onebase.formats.gguf.source import GGUFFile
from onebase.formats.gguf.vocab import read_tokenizer
from onebase.formats.reader import ConfigReader
from onebase.formats.weight_loading import load_weights

MAX_TABLE = 4096
"""Angles of a head at most."""


@dataclass(frozen=True)
class OpenedGGUF:
    """All that a file holds. `template` is the Jinja source of its chat template, or None; `unread` are keys that nobody asked for;
    `kinds` counts tensors by the type they are stored in; `files` are its parts; `embedding`: how a text becomes one vector, where it says
    so; `general`: what the file says of itself, `general.*`."""

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
    """Read a .gguf file, or the first of its parts. Weights become `dtype`, or stay as stored (the quantised become float32).

    Raises ArtifactError for a file that is damaged, ConfigError for one that says what the trunk lacks.
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
            f"{r.where}: {rows:,} tokens, but {cfg.text.vocab_size:,} rows of embeddings", "take another file"
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
    """The metadata, and what only the tensors say (see layout)."""
    data: dict[str, Any] = {k: v for k, v in plain(source.metadata).items() if k not in TABLES}
    shapes = source.shapes()
    for name in TABLES:
        if name in shapes:
            if len(shapes[name]) != 1 or shapes[name][0] > MAX_TABLE:
                raise ArtifactError(
                    f"{source.where}: tensor {name!r} has shape {list(shapes[name])}",
                    "it is a list of angles' divisors",
                )
            data[name] = [float(x) for x in source.read(name)]
            if not all(0 < x < float("inf") for x in data[name]):
                raise ArtifactError(
                    f"{source.where}: tensor {name!r} divides by what is no positive number",
                    "take another file",
                )
    return ConfigReader(data, source.where, frozenset(shapes))


def family_of(r: ConfigReader) -> Family:
    """The family that `general.architecture` names. Raises ConfigError naming those that are known."""
    name = r.get("general.architecture", str)
    for family in FAMILIES:
        if name in family.model_types:
            return family
    known = ", ".join(t for f in FAMILIES for t in f.model_types)
    raise ConfigError(
        f"{r.where}: general.architecture {name!r} is of no family that is known", f"known: {known}"
    )
