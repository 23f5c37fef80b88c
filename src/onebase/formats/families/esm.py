"""ESM-1b and ESM-2, protein language models: BERT with norms before attention and feed-forward, rotary positions (ESM-2) or learned ones.

`token_dropout`: embeddings of masked tokens were zero in training, and those of a text are scaled by 0.88 / (1 - share of `<mask>` in it),
where 0.88 = 1 - 0.15 * 0.8 is the share that stayed in training: `scale` and `dropped` of the codec.
The published weights have rotary angles rounded to fp16, which are used as they are (`RopeConfig.half`). The layout's config cannot express
that, so such a base is not exported to it.
The contact head is a regression on attention maps and no part of the model: `contact_head` reads it, `contact_tensors` writes it. The pooler is left
out.
Source: transformers `models/esm/`, read for names and defaults; Lin et al., Science 379 (2023).
"""

import re
from dataclasses import replace

import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.base.head import ContactHead
from onebase.errors import ArtifactError
from onebase.formats.families import encoder
from onebase.formats.family import Tree
from onebase.formats.fields import Found, Must, Put, Table, View, flag, number
from onebase.formats.names import Names, block_names, table_family, under
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Ignore
from onebase.formats.weight_loading import WeightSource
from onebase.model.config import RopeConfig

BLOCK = block_names(
    "attention.self.query attention.self.key attention.self.value attention.output.dense "
    "attention.LayerNorm intermediate.dense output.dense LayerNorm"
)
HEAD = ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder.weight", "lm_head.bias")
KEPT = 1 - 0.15 * 0.8
PAD = 1
"""`<pad>` in the one alphabet of ESM-1b and ESM-2; rotary positions do not depend on it."""
CONTACTS = Ignore(
    r"(esm\.)?contact_head\.regression\.(weight|bias)",
    "it is read as the regression of contacts, beside the model",
)
NO_TABLE = Ignore(r"(esm\.)?embeddings\.position_embeddings\.weight", "rotary positions have no table")


class Positions:
    """Positions: rotary, or a table whose first rows are not used."""

    def read(self, r: ConfigReader, found: Found) -> None:
        kinds = {"absolute": True, "rotary": False}
        count = r.size("max_position_embeddings", 1026)
        if r.one_of("position_embedding_type", kinds, "absolute"):
            encoder.BEHIND_PADDING.read(r, found)
            found |= {"codec.positions": count, "codec.context": count - found["codec.first_position"]}
        else:
            found |= {"codec.context": count, "block.attn.rope": _rope(r)}

    def write(self, base: View, tree: Tree) -> None:
        count, rope = base["codec.positions"], base["block.attn.rope"]
        tree["position_embedding_type"] = "rotary" if count is None else "absolute"
        tree["max_position_embeddings"] = count or base["codec.context"]
        tree["pad_token_id"] = PAD if count is None else base["codec.first_position"] - 1
        tree |= {} if rope is None else {"rope_theta": rope.base}


class Dropped:
    """The embedding of the mask token is zero, and the others are scaled."""

    def read(self, r: ConfigReader, found: Found) -> None:
        if r.get("token_dropout", bool, False):
            found |= {"codec.scale": KEPT, "codec.dropped": r.get("mask_token_id", int)}

    def write(self, base: View, tree: Tree) -> None:
        tree |= {"token_dropout": base["codec.scale"] is not None, "mask_token_id": base["codec.dropped"]}


TABLE = Table(
    (
        Put({"model_type": "esm"}),
        *encoder.NO_DECODER,
        Must("is_folding_model", False, "structure prediction is not supported"),
        Dropped(),
        *encoder.trunk_lines()[:-1],  # its activation is always GELU, whatever the key
        flag("emb_layer_norm_before", "trunk.input_norm", False, on=encoder.NORM, off=None),
        number("layer_norm_eps", encoder.MASKED_EPS, 1e-12),
        encoder.VOCABULARY,
        Positions(),
        encoder.Predicts("Esm", "lm_head.dense.weight"),
    ),
    encoder.ENCODER,
    encoder.MASKED,
)


def _rope(r: ConfigReader) -> RopeConfig:
    """Rotary positions. Only the stored angles show whether they are rounded to fp16."""
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


def contact_head(source: WeightSource, cfg: BaseConfig) -> ContactHead | None:
    """The regression of contacts of a checkpoint; None where it has none. Raises ArtifactError for one of another size."""
    name = next(
        (n for n in source.shapes() if re.fullmatch(r"(esm\.)?contact_head\.regression\.weight", n)), None
    )
    if name is None:
        return None
    weight, bias = source.read(name), source.read(name.removesuffix("weight") + "bias")
    count = sum(block.attn.heads for block in cfg.trunks["text"].blocks)
    if weight.shape != (1, count) or bias.shape != (1,):
        raise ArtifactError(
            f"{source.where}: {name} has shape {tuple(weight.shape)}, its blocks have {count} heads in all",
            "take an intact copy of the folder",
        )
    return ContactHead(weight[0].float().clone(), float(bias))


def contact_tensors(head: ContactHead) -> dict[str, Tensor]:
    """The regression as the layout stores it."""
    begin = "esm.contact_head.regression."
    return {f"{begin}weight": head.weight_C[None].clone(), f"{begin}bias": torch.tensor([head.bias])}


def names(cfg: BaseConfig) -> Names:
    return [
        ("esm.embeddings.word_embeddings", "codec.stem"),
        ("esm.embeddings.position_embeddings.weight", "codec.stem.positions"),
        ("esm.embeddings.layer_norm", "trunk.input_norm"),
        ("esm.encoder.emb_layer_norm_after", "trunk.final_norm"),
        *under("esm.encoder.layer.{i}.", BLOCK),
        *encoder.head_names(cfg, *HEAD),
        *(encoder.COUNTED, encoder.POOLER, CONTACTS),
        *([] if cfg.text.positions else [NO_TABLE, _angles(cfg)]),
    ]


def _angles(cfg: BaseConfig) -> Ignore:
    attn = cfg.trunks["text"].blocks[0].attn
    rope = attn.rope or RopeConfig()

    def same(x: Tensor) -> bool:
        return x.shape == (attn.head_dim // 2,) and _same(rope, x)

    return Ignore(r".*rotary_embeddings\.inv_freq", "rotary angles follow from the config", same)


FAMILY = table_family("esm", TABLE, names, prefix="esm.")
