"""Keys of an architecture beside those of its table: `pooling_type`, and those that change nothing here (of parts that are off, or never read).

Source: what llama.cpp's converter writes and what its reader asks for (`gguf.constants.Keys`, src/llama-model.cpp), llama.h for pooling. A
part that is on is refused by the key's name, whatever other key of it stands beside. The format has no word for the length of vectors and
for where texts are cut: llama.cpp leaves both to who asks. Ours stand under keys of our own, which llama.cpp does not read.
"""

import math
from typing import Any

import numpy as np

from onebase.codec.text.pooling import EmbeddingConfig, Pooling
from onebase.errors import ConfigError
from onebase.formats.reader import Reader

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
"""Values with which a part is off: the trunk has none of them."""
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
"""How experts work: of no weight where there are none, which `expert_count` says."""
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
"""What nothing computes with in the architectures here: said twice, of training, or of a part that is off."""


def refuse_others(r: Reader, arch: str) -> None:
    """Refuse a key of the architecture that nobody asked for and that may switch on what the trunk lacks. What is left unread and harmless
    stays among `r.unread`, which the record names."""
    width, heads = r.data.get(f"{arch}.embedding_length"), r.data.get(f"{arch}.attention.head_count")
    key_length = r.data.get(f"{arch}.attention.key_length")
    if key_length is None and isinstance(width, int) and isinstance(heads, int) and heads > 0:
        key_length = width // heads
    said_twice = {  # by another name: harmless where both say the same
        "attention.key_length": key_length,
        "attention.key_length_swa": key_length,
        "attention.value_length": key_length,
        "attention.value_length_swa": key_length,
        "rope.dimension_count_swa": r.data.get(f"{arch}.rope.dimension_count", key_length),
        "embedding_length_out": width,
    }
    if isinstance(key_length, int) and key_length > 0:
        said_twice["attention.scale"] = key_length**-0.5
    for key in r.unread:
        name = key.removeprefix(f"{arch}.")
        if name == key or name in IDLE:
            continue
        value, off = r.data[key], OFF.get(name, ())
        if any(_is(value, x) for x in (*off, said_twice.get(name)) if x is not None):
            continue
        accepted = f"only {off[0]!r} is supported" if off else "take another file"
        raise ConfigError(f"{r.where}: '{key}' is {value!r}: nothing here reads it", accepted)


def _is(value: Any, wanted: Any) -> bool:
    """The number (or every number of a list), up to the rounding of float32."""
    if isinstance(value, list):
        return all(_is(v, wanted) for v in value)
    if not isinstance(value, (bool, int, float)):
        return False
    return math.isclose(value, wanted, rel_tol=1e-6)


def plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata with what is said of every block, and alike of each, said once; other lists of numbers outside the tokenizer as lists."""
    out = dict(metadata)
    for key, value in metadata.items():
        if isinstance(value, np.ndarray) and not key.startswith("tokenizer."):
            blocks = metadata.get(f"{key.split('.')[0]}.block_count")
            same = len(value) > 0 and len(value) == blocks and bool((value == value[0]).all())
            out[key] = value[0].item() if same else value.tolist()
    return out


# How a text becomes one vector ---------------------------------------------------------------------------------------------

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
        raise ConfigError(f"GGUF cannot express this base's {what} ({arch}.pooling_type)", "export to hf")
    tree: dict[str, Any] = {f"{arch}.pooling_type": kind, NORMALISE: cfg.normalise}
    return tree if cfg.limit is None else tree | {LIMIT: cfg.limit}
