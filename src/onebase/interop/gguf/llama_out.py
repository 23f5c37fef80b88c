"""The metadata of a base of the Llama layout, as llama.cpp reads it."""

from onebase.base.config import BaseConfig
from onebase.errors import ConfigError
from onebase.interop.family import Tree
from onebase.interop.gguf.header import single
from onebase.interop.gguf.layout import TABLES, divisors


def llama_tree(cfg: BaseConfig) -> Tree:
    """Keys and values, and under a table's name its numbers."""
    trunk, block = cfg.trunks["text"], cfg.trunks["text"].blocks[0]
    attn = block.attn
    if attn.rope is None:
        raise ConfigError(
            "the llama architecture of GGUF has rotary positions, this base has none", "export to hf"
        )
    tree: Tree = {
        "general.architecture": "llama",
        "general.type": "model",
        "llama.block_count": len(trunk.blocks),
        "llama.context_length": cfg.text.context,
        "llama.embedding_length": trunk.width,
        "llama.feed_forward_length": block.ff.hidden,
        "llama.attention.head_count": attn.heads,
        "llama.attention.head_count_kv": attn.kv_heads,
        "llama.attention.key_length": attn.head_dim,
        "llama.attention.value_length": attn.head_dim,
        "llama.attention.layer_norm_rms_epsilon": single(block.norms.norm.eps),
        "llama.rope.dimension_count": attn.head_dim,
        "llama.rope.freq_base": single(attn.rope.base),
        "llama.vocab_size": cfg.text.vocab_size,
    }
    scaling = attn.rope.scaling
    if scaling is not None and scaling.kind == "linear":
        tree |= {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": single(scaling.factor)}
    elif scaling is not None and scaling.kind == "yarn":
        head = "llama.rope.scaling"
        tree |= {f"{head}.type": "yarn", f"{head}.factor": single(scaling.factor)}
        tree |= {f"{head}.original_context_length": scaling.original}
        tree |= {
            f"{head}.yarn_beta_fast": single(scaling.high),
            f"{head}.yarn_beta_slow": single(scaling.low),
        }
    elif scaling is not None:
        # llama.cpp has no formula for these: the divisors stand in a tensor.
        tree[TABLES[0]] = divisors(scaling, attn.rope.base, attn.head_dim)
        tree["llama.rope.scaling.original_context_length"] = scaling.original
    return tree
