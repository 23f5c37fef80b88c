"""How a text becomes one vector, as GGUF says it: `pooling_type`, in and out.

Source: llama.h, enum llama_pooling_type. The format has no word for the length of vectors and for where texts are cut: llama.cpp leaves
both to who asks. Ours stand under keys of our own, which llama.cpp does not read.
"""

from typing import Any

from onebase.codec.text.pooling import EmbeddingConfig, Pooling
from onebase.errors import ConfigError
from onebase.interop.reader import Reader

TYPES: dict[int, Pooling | None] = {-1: None, 0: None, 1: "mean", 2: "cls", 3: "last"}
"""-1 is not said, 0 none: one vector a token, which is what a base that makes none of texts has."""
RANK = 4
NORMALISE, LIMIT = "onebase.embedding.normalise", "onebase.embedding.limit"


def read_pooling(r: Reader, arch: str) -> EmbeddingConfig | None:
    """None where the file does not say how. Raises ConfigError for a way that we lack, by name."""
    key = f"{arch}.pooling_type"
    kind = r.get(key, int, -1)
    if kind == RANK:
        raise ConfigError(
            f"{r.where}: '{key}' is {RANK} (rank): it scores pairs of texts by a head of its own, which nothing here reads",
            "take a file that embeds or writes: accepted are 0 (none), 1 (mean), 2 (cls), 3 (last)",
        )
    if kind not in TYPES:
        raise r.refuse(key, "0 (none), 1 (mean), 2 (cls), 3 (last)")
    normalise = r.get(NORMALISE, bool, False)
    limit = r.size(LIMIT) if r.has(LIMIT) else None
    pooling = TYPES[kind]
    return None if pooling is None else EmbeddingConfig(pooling=pooling, normalise=normalise, limit=limit)


def pooling_tree(cfg: EmbeddingConfig | None, arch: str) -> dict[str, Any]:
    """Keys and values. Raises ConfigError naming what GGUF cannot say."""
    if cfg is None:
        return {}
    kind = next((k for k, ours in TYPES.items() if ours == cfg.pooling), None)
    if kind is None or cfg.filled or cfg.ends is not None:
        what = (
            f"pooling {cfg.pooling!r}" if kind is None else "how it fills up or ends the texts of its vectors"
        )
        raise ConfigError(f"GGUF cannot express this base's {what}", "export to hf")
    tree: dict[str, Any] = {f"{arch}.pooling_type": kind, NORMALISE: cfg.normalise}
    return tree if cfg.limit is None else tree | {LIMIT: cfg.limit}
