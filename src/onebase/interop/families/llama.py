"""Llama 1, 2 and 3, SmolLM, and what else is saved as `llama`.

Source: transformers `models/llama/configuration_llama.py`, read for names and defaults.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families.decoder import GATED, common_tree, decoder_rules, rope, text_codec
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.model.config import AttnConfig, BlockConfig, FFConfig, NormConfig, Norms, Part, TrunkConfig

ALL: tuple[Part, ...] = ("q", "k", "v", "o")


def read(r: Reader, window: int | None = None) -> BaseConfig:
    """The config; other families of this shape say what differs."""
    width, heads = r.get("hidden_size", int), r.get("num_attention_heads", int)
    norm = NormConfig(eps=r.get("rms_norm_eps", float, 1e-6))
    r.must("pretraining_tp", 1, 1, "tensor-parallel slices change the sums")
    block = BlockConfig(
        attn=AttnConfig(
            heads=heads,
            kv_heads=r.get("num_key_value_heads", int, heads),
            head_dim=r.get("head_dim", int, width // heads),
            rope=rope(r, 10000.0),
            window=window,
            bias=ALL if r.get("attention_bias", bool, False) else (),
        ),
        ff=FFConfig(
            hidden=r.get("intermediate_size", int),
            activation=r.one_of("hidden_act", GATED, "silu"),
            bias=r.get("mlp_bias", bool, False),
        ),
        norms=Norms(norm=norm),
    )
    trunk = TrunkConfig(width=width, blocks=(block,) * r.get("num_hidden_layers", int), final_norm=norm)
    codec = text_codec(r, context=r.get("max_position_embeddings", int, 2048))
    return BaseConfig(trunks={"text": trunk}, codecs={"text": codec})


def write(cfg: BaseConfig) -> Tree:
    block = cfg.trunks["text"].blocks[0]
    tree = common_tree(cfg, "llama", "LlamaForCausalLM")
    return tree | {"attention_bias": bool(block.attn.bias), "mlp_bias": block.ff.bias}


FAMILY = Family(("llama",), read, write, decoder_rules, prefix="model.")
