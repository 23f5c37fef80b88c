"""MPNet (all-mpnet-base-v2): BERT without types, whose scores know how far a key is away, the same in all blocks.

Positions begin behind the padding token's row, which is the second whatever `pad_token_id` says; the head's activation is always GELU.
Source: transformers `models/mpnet/`, read for names, defaults and buckets; Song et al., 2004.09297.
"""

from dataclasses import replace

from onebase.base.config import BaseConfig
from onebase.interop.families.bert import BLOCK as BERT_BLOCK
from onebase.interop.families.encoder import (
    COUNTED,
    MASKED,
    MASKED_EPS,
    NO_DECODER,
    POOLER,
    POST,
    VOCABULARY,
    Predicts,
    head_names,
    position_lines,
    trunk_lines,
)
from onebase.interop.families.roberta import HEAD
from onebase.interop.family import Family
from onebase.interop.fields import Must, Put, Set, Table, number
from onebase.interop.names import rules_of, under
from onebase.interop.rules import Rules
from onebase.model.config import RelativeConfig

BUCKETS = 32
ATTENTION = {f"attention.attn.{x}": f"block.attn.{x}" for x in "qkvo"}
BLOCK = {k: v for k, v in BERT_BLOCK.items() if "attn" not in v} | ATTENTION
BLOCK |= {"attention.LayerNorm": "block.attn_norm"}
TABLE = Table(
    (
        Put({"model_type": "mpnet", "pad_token_id": 1}),
        *NO_DECODER,
        Must("relative_attention_num_buckets", BUCKETS, "distances fall into 32 buckets whatever it says"),
        *trunk_lines(),
        number("layer_norm_eps", MASKED_EPS, 1e-12),
        VOCABULARY,
        Set("codec.first_position", lambda r, found: 2),
        *position_lines(),
        Predicts("MPNet", "lm_head.dense.weight"),
    ),
    replace(POST, relative=RelativeConfig(buckets=BUCKETS)),
    MASKED,
)


def rules(cfg: BaseConfig) -> Rules:
    a = "mpnet.embeddings"
    names = [
        (f"{a}.word_embeddings", "codec.stem"),
        (f"{a}.position_embeddings.weight", "codec.stem.positions"),
        (f"{a}.LayerNorm", "trunk.input_norm"),
        ("mpnet.encoder.relative_attention_bias.weight", "trunk.relative"),
        *under("mpnet.encoder.layer.{i}.", BLOCK),
    ]
    return rules_of(cfg, "text", [*names, *head_names(cfg, *HEAD), COUNTED, POOLER])


FAMILY = Family(("mpnet",), TABLE.read, TABLE.write, rules, prefix="mpnet.")
