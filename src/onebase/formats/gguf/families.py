"""Two-way tables of GGUF architectures: metadata keys and tensor names. `general.architecture` selects one.

Sources: llama.cpp's use of each key (src/models, src/llama-model.cpp), read for names, defaults and meaning; `gguf.constants` for tensor
names. Facts without a metadata key (bias, output matrix, scaled rotary angles) follow from the tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.formats.families.decoder import DECODER, TEXT, patterned
from onebase.formats.family import Family, Tree
from onebase.formats.fields import Field, Line, Must, Put, Set, Table, number
from onebase.formats.gguf.header import single
from onebase.formats.gguf.keys import refuse_others
from onebase.formats.gguf.lines import NORM_EPS, PhiWindow, decoder_lines, gemma_lines
from onebase.formats.gguf.rotary import TABLES, RopeLine
from onebase.formats.names import Names, rules_of, under
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Ignore, Rotary, Rules
from onebase.model.config import NormConfig, Norms, TrunkConfig

BLOCK = {
    "attn_norm": "block.attn_norm",
    **{f"attn_{x}": f"block.attn.{x}" for x in "qkv"},
    "attn_output": "block.attn.o",
    **{f"attn_{x}_norm": f"block.attn.{x}_norm" for x in "qk"},
    "post_attention_norm": "block.attn_out_norm",
    "ffn_norm": "block.ff_norm",
    **{f"ffn_{x}": f"block.ff.{x}" for x in ("gate", "up", "down")},
    "post_ffw_norm": "block.ff_out_norm",
}
"""Tensors of a block. A line is skipped if the model lacks our tensor."""
FUSED = {"attn_qkv": "block.attn.q block.attn.k block.attn.v"}
FUSED |= {name: ours for name, ours in BLOCK.items() if name not in ("attn_q", "attn_k", "attn_v")}
ENDS: Names = [
    ("token_embd", "codec.stem"),
    ("position_embd.weight", "codec.stem.positions"),
    ("output_norm", "trunk.final_norm"),
    ("output", "codec.head"),
    *(Ignore(table.replace(".", r"\."), "its values are in the config") for table in TABLES),
]


@dataclass(frozen=True)
class Plus:
    """Their stored values are ours plus `x`."""

    x: float

    def there(self, xs: list[Tensor]) -> list[Tensor]:
        return [x - self.x for x in xs]

    def back(self, xs: list[Tensor]) -> list[Tensor]:
        return [x.float() + self.x for x in xs]


def _rules(cfg: BaseConfig, block: Mapping[str, str], turned: bool) -> Rules:
    """turned: heads are in llama.cpp's order for rotary embedding."""
    trunk = cfg.trunks["text"]
    attn, norm = trunk.blocks[0].attn, trunk.blocks[0].norms.norm
    steps: dict[str, Any] = {}
    if turned:
        steps = {"block.attn.q": Rotary(attn.heads), "block.attn.k": Rotary(attn.kv_heads)}
    norms = {ours: norm for ours in block.values() if ours.endswith("norm")}
    norms |= {"block.attn.q_norm": attn.qk_norm or norm, "block.attn.k_norm": attn.qk_norm or norm}
    norms["trunk.final_norm"] = trunk.final_norm or norm
    steps |= {ours: Plus(n.offset) for ours, n in norms.items() if n.offset}
    names: list[Any] = [*ENDS, *under("blk.{i}.", block)]
    return rules_of(
        cfg, "text", [(*x, steps[x[1]]) if isinstance(x, tuple) and x[1] in steps else x for x in names]
    )


def _family(
    lines: tuple[Line, ...],
    trunk: TrunkConfig = DECODER,
    block: Mapping[str, str] = BLOCK,
    turned: bool = False,
) -> Family:
    table = Table(lines, trunk, TEXT)
    (name,) = (x.tree["general.architecture"] for x in lines if isinstance(x, Put))

    def read(r: ConfigReader) -> BaseConfig:
        cfg = table.read(r)
        r.has(f"{name}.pooling_type")  # of text embeddings, see keys.py
        refuse_others(r, name)
        return cfg

    def write(cfg: BaseConfig) -> Tree:
        tree = {k: v for k, v in table.write(cfg).items() if v is not None}
        return {k: single(v) if isinstance(v, float) else v for k, v in tree.items()}

    return Family((name,), read, write, partial(_rules, block=block, turned=turned))


QK_NORM = f"{NORM_EPS} block.attn.qk_norm.eps"
NORMED = {"qk_norm": NormConfig()}
SANDWICH: dict[str, Any] = {"norms": Norms(where="sandwich"), "ff": {"activation": "geglu_tanh"}}
LAYER = NormConfig(kind="layer")
UNUSED = "llama.cpp does not use it for this architecture"

LLAMA = _family(
    decoder_lines("llama", Must("llama.attention.sliding_window", 0, UNUSED), RopeLine("llama", TABLES[:1])),
    turned=True,
)
QWEN2 = _family(decoder_lines("qwen2", RopeLine("qwen2")))
QWEN3 = _family(decoder_lines("qwen3", RopeLine("qwen3"), normed=QK_NORM), patterned(DECODER, attn=NORMED))
GEMMA2 = _family(
    gemma_lines(
        "gemma2",
        2,
        46,
        # The models have both: without them a file would be read wrongly.
        number("gemma2.attn_logit_softcapping", "block.attn.softcap"),
        number("gemma2.final_logit_softcapping", "codec.softcap"),
        Set("codec.tied", lambda r, found: True),
    ),
    patterned(DECODER, **SANDWICH),
)
GEMMA3 = _family(
    gemma_lines(
        "gemma3",
        6,
        62,
        Field(
            "gemma3.final_logit_softcapping", "codec.softcap", lambda r, k, d: r.get(k, float, 0.0) or None
        ),
        normed=QK_NORM,
    ),
    patterned(DECODER, **SANDWICH, attn=NORMED),
)
PHI3 = _family(
    decoder_lines(
        "phi3",
        RopeLine("phi3", TABLES[1:], partial=True),
        PhiWindow(),
    ),
    block={k: v for k, v in FUSED.items() if k != "ffn_gate"} | {"ffn_up": "block.ff.gate block.ff.up"},
)
GPT2 = _family(
    decoder_lines(
        "gpt2",
        Set("codec.positions", lambda r, found: found["codec.context"]),
        eps="attention.layer_norm_epsilon",
    ),
    replace(
        patterned(DECODER, attn={"rope": None}, ff={"activation": "gelu_tanh"}, norms=Norms(norm=LAYER)),
        final_norm=LAYER,
    ),
    FUSED,
)
FAMILIES = (LLAMA, QWEN2, QWEN3, GEMMA2, GEMMA3, PHI3, GPT2)


def family_for(cfg: BaseConfig) -> Family:
    """The architecture for a base, by its parts. Reading the metadata back checks whether it expresses everything."""
    if cfg.text.positions:  # raises for a base that reads no text
        return GPT2
    block = cfg.trunks["text"].blocks[0]
    rope = block.attn.rope
    if rope is not None and (rope.dim or (rope.scaling and rope.scaling.short != rope.scaling.long)):
        return PHI3
    if block.norms.where == "sandwich":
        return GEMMA2 if block.attn.qk_norm is None else GEMMA3
    if block.attn.qk_norm is not None:
        return QWEN3
    return QWEN2 if block.attn.bias == ("q", "k", "v") else LLAMA


def stored(cfg: BaseConfig) -> BaseConfig:
    """The config of a base as GGUF stores it: the offset of a norm (Gemma's 1 + w) is part of its weights there."""

    def plain(norm: NormConfig | None) -> Any:
        return norm and replace(norm, offset=0.0)

    trunk = cfg.trunks["text"]
    without_offset = {
        block: replace(
            block,
            norms=replace(block.norms, norm=plain(block.norms.norm)),
            attn=replace(block.attn, qk_norm=plain(block.attn.qk_norm)),
        )
        for block in dict.fromkeys(trunk.blocks)
    }
    blocks = tuple(without_offset[block] for block in trunk.blocks)
    new = replace(trunk, blocks=blocks, final_norm=plain(trunk.final_norm))
    return replace(cfg, trunks=cfg.trunks | {"text": new})
