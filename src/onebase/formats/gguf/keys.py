"""Keys of an architecture outside its table: `pooling_type`, and keys without effect here (of features that are off, or never read).

Source: the keys that llama.cpp's converter writes and its reader reads (`gguf.constants.Keys`, src/llama-model.cpp), llama.h for pooling. A
feature that is on is refused with the key's name, whatever its other keys are. The format has no keys for normalisation and for the maximum
length of embedded texts: llama.cpp leaves both to the caller. Ours are under keys of our own, which llama.cpp does not read.
"""

import math
from typing import Any

import numpy as np

from onebase.errors import ConfigError
from onebase.formats.reader import ConfigReader
from onebase.modality.text.pooling import EmbeddingConfig, Pooling

OFF: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.output_scale": (0, 1),
    "attention.relative_buckets_count": (0,),
    "attention.scale": (0,),
    "attention.shared_kv_layers": (0,),
    "attention.sliding_window": (0,),
    "attention.temperature_length": (0,),
    "attention.temperature_scale": (0, 1),
    "attn_logit_softcapping": (0,),
    "embedding_length_per_layer_input": (0,),
    "embedding_scale": (0, 1),
    "expert_count": (0,),
    "expert_group_count": (0,),
    "expert_group_used_count": (0,),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "n_deepstack_layers": (0,),
    "nextn_predict_layers": (0,),
    "residual_scale": (0, 1),
    "rope.scale_linear": (1,),
    "rope.scaling.alpha": (0, 1),
    "router_logit_softcapping": (0,),
    "use_parallel_residual": (False,),
}
"""Values that turn a feature off: the trunk has none of these features."""
EXPERTS = (
    "expert_feed_forward_length",
    "expert_gating_func",
    "expert_group_scale",
    "expert_shared_feed_forward_length",
    "expert_weights_norm",
    "expert_weights_scale",
    "experts_per_group",
    "interleave_moe_layer_step",
    "leading_dense_block_count",
    "moe_every_n_layers",
)
"""Settings of experts, without effect if `expert_count` is 0."""
IDLE = (
    *EXPERTS,
    "attention.group_norm_epsilon",
    "attention.group_norm_groups",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window_pattern",
    "classifier.output_labels",
    "decoder_start_token_id",
    "rope.freq_base_swa",
    "rope.scaling.finetuned",
    "tensor_data_layout",
    "vocab_size",
)
"""Keys that the architectures here do not use: duplicates, settings of training, or of features that are off."""


def refuse_others(r: ConfigReader, arch: str) -> None:
    """Refuse an unread key of the architecture that may enable a feature the trunk lacks. Harmless unread keys stay in `r.unread`, which the
    record lists."""
    width, heads = r.data.get(f"{arch}.embedding_length"), r.data.get(f"{arch}.attention.head_count")
    key_length = r.data.get(f"{arch}.attention.key_length")
    if key_length is None and isinstance(width, int) and isinstance(heads, int) and heads > 0:
        key_length = width // heads
    duplicates = {  # of other keys: harmless if both have the same value
        "attention.key_length": key_length,
        "attention.key_length_swa": key_length,
        "attention.value_length": key_length,
        "attention.value_length_swa": key_length,
        "rope.dimension_count_swa": r.data.get(f"{arch}.rope.dimension_count", key_length),
        "embedding_length_out": width,
    }
    if isinstance(key_length, int) and key_length > 0:
        duplicates["attention.scale"] = key_length**-0.5
    for key in r.unread:
        name = key.removeprefix(f"{arch}.")
        if name == key or name in IDLE:
            continue
        value, off = r.data[key], OFF.get(name, ())
        if any(_is(value, x) for x in (*off, duplicates.get(name)) if x is not None):
            continue
        accepted = f"only {off[0]!r} is supported" if off else "use another file"
        raise ConfigError(f"{r.where}: '{key}' is {value!r}, which is not supported", accepted)


def _is(value: Any, wanted: Any) -> bool:
    """Is the number (or every number of a list) equal to `wanted`, up to float32 rounding?"""
    if isinstance(value, list):
        return all(_is(v, wanted) for v in value)
    if not isinstance(value, (bool, int, float)):
        return False
    return math.isclose(value, wanted, rel_tol=1e-6)


def plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata with per-block arrays of equal values as one value, and other arrays outside the tokenizer as lists."""
    out = dict(metadata)
    for key, value in metadata.items():
        if isinstance(value, np.ndarray) and not key.startswith("tokenizer."):
            blocks = metadata.get(f"{key.split('.')[0]}.block_count")
            same = len(value) > 0 and len(value) == blocks and bool((value == value[0]).all())
            out[key] = value[0].item() if same else value.tolist()
    return out


# Text embeddings -----------------------------------------------------------------------------------------------------------

TYPES: dict[int, Pooling | None] = {-1: None, 0: None, 1: "mean", 2: "cls", 3: "last"}
"""-1 is unspecified, 0 none: one vector a token, as in a base without text embeddings."""
RANK = 4
NORMALISE, LIMIT = "onebase.embedding.normalise", "onebase.embedding.limit"


def read_pooling(r: ConfigReader, arch: str) -> EmbeddingConfig | None:
    """The pooling of text embeddings; None if the file has none. Raises ConfigError for an unsupported kind."""
    key = f"{arch}.pooling_type"
    kind = r.get(key, int, -1)
    if kind == RANK:
        raise ConfigError(
            f"{r.where}: '{key}' is {RANK} (rank): it scores pairs of texts with its own head, which is not supported",
            "use a file that embeds or generates text; accepted: 0 (none), 1 (mean), 2 (cls), 3 (last)",
        )
    if kind not in TYPES:
        raise r.refuse(key, "0 (none), 1 (mean), 2 (cls), 3 (last)")
    normalise = r.get(NORMALISE, bool, False)
    limit = r.size(LIMIT) if r.has(LIMIT) else None
    pooling = TYPES[kind]
    return None if pooling is None else EmbeddingConfig(pooling=pooling, normalise=normalise, limit=limit)


def pooling_tree(cfg: EmbeddingConfig | None, arch: str) -> dict[str, Any]:
    """Keys and values of text embeddings. Raises ConfigError with what GGUF cannot express."""
    if cfg is None:
        return {}
    kind = next((k for k, ours in TYPES.items() if ours == cfg.pooling), None)
    if kind is None or cfg.filled or cfg.ends is not None:
        what = f"pooling {cfg.pooling!r}" if kind is None else "padding or end token of embedded texts"
        raise ConfigError(f"GGUF cannot express this base's {what} ({arch}.pooling_type)", "export to hf")
    tree: dict[str, Any] = {f"{arch}.pooling_type": kind, NORMALISE: cfg.normalise}
    return tree if cfg.limit is None else tree | {LIMIT: cfg.limit}
