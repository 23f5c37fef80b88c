"""ESM-1b and ESM-2, language models of proteins: BERT with norms before its parts, rotary positions (ESM-2) or learned ones.

`token_dropout`: they trained with the vectors of masked tokens set to zero and scale the vectors of a text by 0.88 / (1 - share of `<mask>` in
it), 0.88 = 1 - 0.15 * 0.8 being what stayed in training: `scale` and `dropped` of the codec.
The published weights hold rotary angles rounded to fp16; they are used so (`RopeConfig.half`), which the layout's config cannot say, so
such a base is not exported to it.
The head for contacts reads attention weights, which a base does not give; it is left out, as the pooler is.
Source: transformers `models/esm/`, read for names and defaults; Lin et al., Science 379 (2023).
"""

from dataclasses import replace

import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig, TransformConfig
from onebase.interop.families.bert import PARTS as BERT_PARTS
from onebase.interop.families.decoder import text_trunk
from onebase.interop.families.encoder import (
    COUNTED,
    MAX_DEPTH,
    MAX_VOCABULARY,
    POOLER,
    STEM,
    TRUNK,
    architecture,
    behind_padding,
    block_rules,
    both,
    encoder,
    encoder_base,
    has_head,
    head_rules,
    no_decoder,
)
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rule, Rules, Tie, rename
from onebase.model.config import NormConfig, RopeConfig

PARTS = BERT_PARTS | {"attn_norm": "attention.LayerNorm", "ff_norm": "LayerNorm"}
KEPT = 1 - 0.15 * 0.8
PAD = 1
"""`<pad>` in the one alphabet of ESM-1b and ESM-2; rotary positions do not depend on it."""
CONTACTS = Ignore(
    r"(esm\.)?contact_head\..*", "contacts are read from attention weights, which a base does not give"
)


def read(r: Reader) -> BaseConfig:
    no_decoder(r)
    r.must("is_folding_model", False, False, "structures are not predicted here")
    dropout = r.get("token_dropout", bool, False)
    kind = r.one_of("position_embedding_type", {"absolute": "absolute", "rotary": "rotary"}, "absolute")
    learned = kind == "absolute"
    norm = NormConfig(kind="layer", eps=r.positive("layer_norm_eps", 1e-12))
    trunk = encoder(
        width=r.size("hidden_size", 768),
        depth=r.size("num_hidden_layers", 12, MAX_DEPTH),
        heads=r.size("num_attention_heads", 12),
        hidden=r.size("intermediate_size", 3072),
        activation="gelu",
        norm=norm,
        where="pre",
        rope=None if learned else _rope(r),
        normed=r.get("emb_layer_norm_before", bool, False),
    )
    positions = r.size("max_position_embeddings", 1026)
    first = behind_padding(r, PAD) if learned else 0
    predicts = has_head(r, "lm_head.dense.weight")
    codec = TextCodecConfig(
        vocab_size=r.size("vocab_size", most=MAX_VOCABULARY),
        context=positions - first,
        scale=KEPT if dropout else None,
        dropped=r.get("mask_token_id", int) if dropout else None,
        positions=positions if learned else None,
        first_position=first,
        tied=r.get("tie_word_embeddings", bool, True) and predicts,
        head=predicts,
        head_bias=predicts,
        transform=TransformConfig(norm=norm) if predicts else None,
    )
    return encoder_base(trunk, codec)


def _rope(r: Reader) -> RopeConfig:
    """Rotary positions. Whether their angles are rounded to fp16 is seen from the stored ones alone."""
    exact = RopeConfig(base=r.positive("rope_theta", 10000.0))
    name = next((n for n in sorted(r.tensors) if n.endswith("rotary_embeddings.inv_freq")), None)
    if name is None or r.look is None:
        return exact
    half = replace(exact, half=True)
    return half if _same(half, r.look(name)) and not _same(exact, r.look(name)) else exact


def _same(cfg: RopeConfig, x: Tensor) -> bool:
    dim = 2 * x.numel()
    wanted = cfg.base ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    wanted = wanted.half().float() if cfg.half else wanted
    return x.ndim == 1 and torch.allclose(x.float(), wanted, rtol=1e-5, atol=0)


def write(cfg: BaseConfig) -> Tree:
    trunk, codec = text_trunk(cfg), cfg.text
    block, learned = trunk.blocks[0], codec.positions is not None
    tree = {
        "architectures": architecture(cfg, "Esm"),
        "model_type": "esm",
        "vocab_size": codec.vocab_size,
        "max_position_embeddings": codec.positions or codec.context,
        "position_embedding_type": "absolute" if learned else "rotary",
        "tie_word_embeddings": codec.tied or not codec.head,
        "hidden_size": trunk.width,
        "intermediate_size": block.ff.hidden,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.heads,
        "layer_norm_eps": block.norms.norm.eps,
        "emb_layer_norm_before": trunk.input_norm is not None,
        "token_dropout": codec.scale is not None,
        "mask_token_id": codec.dropped,
        "pad_token_id": codec.first_position - 1 if learned else PAD,
    }
    return tree | ({"rope_theta": block.attn.rope.base} if block.attn.rope else {})


def rules(cfg: BaseConfig) -> Rules:
    trunk, codec = text_trunk(cfg), cfg.text
    table = "esm.embeddings.position_embeddings.weight"
    out: list[Rule | Tie | Ignore] = [
        rename("esm.embeddings.word_embeddings.weight", f"{STEM}.weight"),
        *both("esm.encoder.emb_layer_norm_after", f"{TRUNK}.final_norm"),
        *block_rules(cfg, "esm.encoder.layer.{i}", PARTS),
        COUNTED,
        POOLER,
        CONTACTS,
    ]
    if trunk.input_norm is not None:
        out += both("esm.embeddings.layer_norm", f"{TRUNK}.input_norm")
    if codec.positions is not None:
        out.append(rename(table, f"{STEM}.positions"))
    else:
        out.append(
            Ignore(r"(esm\.)?embeddings\.position_embeddings\.weight", "rotary positions have no table")
        )
        out.append(_angles(cfg))
    head = ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder.weight", "lm_head.bias")
    return [*out, *head_rules(codec, *head)]


def _angles(cfg: BaseConfig) -> Ignore:
    attn = cfg.trunks["text"].blocks[0].attn
    rope = attn.rope or RopeConfig()

    def same(x: Tensor) -> bool:
        return x.shape == (attn.head_dim // 2,) and _same(rope, x)

    return Ignore(r".*rotary_embeddings\.inv_freq", "rotary angles follow from the config", same)


FAMILY = Family(("esm",), read, write, rules, prefix="esm.")
