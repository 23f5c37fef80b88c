"""The architectures of GGUF that are read: metadata as a config, and rules for the tensors. `general.architecture` picks one.

Sources: the llama.cpp reader's use of each key (src/llama-model.cpp), read for names, defaults and meaning. Norms of Gemma are stored with
one already added, so their offset is 0 here.
"""

from collections.abc import Callable
from typing import Any

from onebase.base.config import BaseConfig
from onebase.errors import ConfigError
from onebase.interop.family import Family, Tree
from onebase.interop.gguf import layout
from onebase.interop.gguf.llama_out import llama_tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Rules
from onebase.model.config import (
    Activation,
    AttnConfig,
    BlockConfig,
    FFConfig,
    NormConfig,
    Norms,
    Part,
    RopeConfig,
    TrunkConfig,
)

MAX_DEPTH = 1000
"""The deepest open models have 126 blocks."""
RMS = "attention.layer_norm_rms_epsilon"


def _norm(r: Reader) -> NormConfig:
    return NormConfig(eps=r.positive(f"{layout.arch(r)}.{RMS}"))


def _base(r: Reader, attns: list[AttnConfig], ff: FFConfig, norms: Norms, **codec: Any) -> BaseConfig:
    blocks = tuple(BlockConfig(attn=attn, ff=ff, norms=norms) for attn in attns)
    width = r.size(f"{layout.arch(r)}.embedding_length")
    trunk = TrunkConfig(width=width, blocks=blocks, final_norm=norms.norm)
    cfg = BaseConfig(trunks={"text": trunk}, codecs={"text": layout.codec(r, **codec)})
    return layout.finish(r, cfg)


def _ff(r: Reader, activation: Activation = "swiglu", bias: bool | None = None) -> FFConfig:
    hidden = r.size(f"{layout.arch(r)}.feed_forward_length")
    bias = "blk.0.ffn_down.bias" in r.tensors if bias is None else bias
    return FFConfig(hidden=hidden, activation=activation, bias=bias)


def _depth(r: Reader) -> int:
    """Blocks announced: bounded before anything is built of them."""
    key = f"{layout.arch(r)}.block_count"
    return r.size(key, most=min(MAX_DEPTH, len(r.tensors)))


def _llama(r: Reader) -> BaseConfig:
    r.must(
        f"{layout.arch(r)}.attention.sliding_window", 0, 0, "llama.cpp does not use it for this architecture"
    )
    attn = layout.attention(r, layout.rope(r))
    return _base(r, [attn] * _depth(r), _ff(r), Norms(norm=_norm(r)))


def _qwen2(r: Reader) -> BaseConfig:
    return _base(r, [layout.attention(r, layout.rope(r))] * _depth(r), _ff(r), Norms(norm=_norm(r)))


def _qwen3(r: Reader) -> BaseConfig:
    attn = layout.attention(r, layout.rope(r), qk_norm=_norm(r))
    return _base(r, [attn] * _depth(r), _ff(r), Norms(norm=_norm(r)))


def _phi3(r: Reader) -> BaseConfig:
    window = r.get(f"{layout.arch(r)}.attention.sliding_window", int, 0) or None
    attn = layout.attention(r, layout.rope(r, partial=True), window=window)
    return _base(r, [attn] * _depth(r), _ff(r), Norms(norm=_norm(r)))


def _gpt2(r: Reader) -> BaseConfig:
    a = layout.arch(r)
    norm = NormConfig(kind="layer", eps=r.get(f"{a}.attention.layer_norm_epsilon", float))
    attn = layout.attention(r, None)
    biased: tuple[Part, ...] = ("q", "k", "v", "o") if "blk.0.attn_qkv.bias" in r.tensors else ()
    attn = AttnConfig(
        heads=attn.heads, kv_heads=attn.kv_heads, head_dim=attn.head_dim, rope=None, bias=biased
    )
    context = r.size(f"{a}.context_length", most=layout.MAX_ROWS)
    ff = _ff(r, "gelu_tanh")
    return _base(r, [attn] * _depth(r), ff, Norms(norm=norm), positions=context)


def _sandwich(
    r: Reader, period: int, rope: RopeConfig, local: RopeConfig, big: int, **more: Any
) -> BaseConfig:
    """Gemma 2 and 3: norms on both sides, of every `period` blocks all but the last see a window only."""
    a, depth, norm = layout.arch(r), _depth(r), _norm(r)
    window = r.get(f"{a}.attention.sliding_window", int, 0) or None
    width, heads = r.size(f"{a}.embedding_length"), r.size(f"{a}.attention.head_count")
    # The format does not say the scale of scores. llama.cpp takes it from the number of blocks: the largest model has its own.
    scale = (width / heads) ** -0.5 if depth == big else None
    attns = []
    for i in range(depth):
        sees_all = window is None or i % period == period - 1
        attns.append(
            layout.attention(
                r, rope if sees_all else local, window=None if sees_all else window, scale=scale, **more
            )
        )
    final = r.get(f"{a}.final_logit_softcapping", float, 0.0) or None
    norms = Norms(norm=norm, where="sandwich")
    return _base(r, attns, _ff(r, "geglu_tanh"), norms, scale=width**0.5, softcap=final)


def _gemma2(r: Reader) -> BaseConfig:
    a, rope = layout.arch(r), layout.rope(r)
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window"):
        r.get(f"{a}.{key}", float)  # the models have all three: a file without them would be read wrongly
    softcap = r.get(f"{a}.attn_logit_softcapping", float) or None
    return _sandwich(r, 2, rope, rope, 46, softcap=softcap)


def _gemma3(r: Reader) -> BaseConfig:
    a, rope = layout.arch(r), layout.rope(r)
    local = RopeConfig(base=r.positive(f"{a}.rope.freq_base_swa", 10000.0), dim=rope.dim)
    period = r.size(f"{a}.attention.sliding_window_pattern", 6)
    return _sandwich(r, period, rope, local, 62, qk_norm=_norm(r))


def _rules(*, interleaved: bool = False, fused: bool = False) -> Callable[[BaseConfig], Rules]:
    def rules(cfg: BaseConfig) -> Rules:
        trunk = cfg.trunks["text"]
        found = list(layout.end_rules(cfg))
        for i in range(len(trunk.blocks)):
            found += layout.block_rules(trunk, i, interleaved=interleaved, fused=fused)
        return found

    return rules


def _unwritten(cfg: BaseConfig) -> Tree:
    raise ConfigError(
        "only the llama architecture is written as GGUF", "export a base of its layout, or to hf"
    )


def _family(name: str, read: Callable[[Reader], BaseConfig], **how: bool) -> Family:
    write = llama_tree if name == "llama" else _unwritten
    return Family((name,), read, write, _rules(**how))


FAMILIES: tuple[Family, ...] = (
    _family("llama", _llama, interleaved=True),
    _family("qwen2", _qwen2),
    _family("qwen3", _qwen3),
    _family("gemma2", _gemma2),
    _family("gemma3", _gemma3),
    _family("phi3", _phi3, fused=True),
    _family("gpt2", _gpt2, fused=True),
)
