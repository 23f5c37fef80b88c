"""Gemma 3, text: Gemma 2 with norms on queries and keys instead of soft-caps, five blocks with a window to one without, and a
rotary base of its own for each of the two kinds.

Source: transformers `models/gemma3/configuration_gemma3.py`, read for names, defaults and how older spellings are understood.
"""

from onebase.base.config import BaseConfig
from onebase.errors import ConfigError
from onebase.interop.families.decoder import FULL, SLIDING, layer_windows, text_trunk
from onebase.interop.families.gemma2 import gemma, gemma_sizes, gemma_tree, rules
from onebase.interop.families.rotary import one_rope, rope_map
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.model.config import RopeConfig

BASES = {FULL: 1_000_000.0, SLIDING: 10_000.0}


def read(r: Reader) -> BaseConfig:
    r = _text(r) if r.has("text_config") else r
    r.must("attn_logit_softcapping", None, None, "it is not known whether scores are meant to be capped")
    s = gemma_sizes(r)
    pattern = r.size("sliding_window_pattern", r.size("_sliding_window_pattern", 6))
    window = r.size_or_none("sliding_window", 4096)
    windows = layer_windows(r, s.layers, window, lambda i: (i + 1) % pattern != 0)
    caps = (None, r.positive_or_none("final_logit_softcapping", None))
    return gemma(r, s, windows, _ropes(r, s.head_dim), context=131072, caps=caps, qk_norm=True)


def _text(r: Reader) -> Reader:
    """The text part of a config for text and images. Raises ConfigError where the images' part is there too."""
    seeing = next(
        (n for n in sorted(r.tensors) if "vision_tower." in n or "multi_modal_projector." in n), None
    )
    if r.has("vision_config") or seeing is not None:
        raise ConfigError(
            f"{r.where}: "
            + (f"tensor {seeing!r}" if seeing else "'vision_config'")
            + " is of a model that sees images",
            "the gemma3 family reads text models: take one whose model_type is gemma3_text",
        )
    return r.part("text_config")


def _ropes(r: Reader, head_dim: int) -> dict[str, RopeConfig]:
    """By kind of block: `rope_parameters` (transformers 5), or `rope_theta`, `rope_local_base_freq` and `rope_scaling`, which is of
    the blocks without a window."""
    maps = r.part("rope_parameters") if r.has("rope_parameters") else Reader({}, r.where)
    for key in sorted(maps.data.keys() - BASES.keys()):
        maps.must(key, None, None, f"here is one map for each of {', '.join(BASES)}")
    out = {}
    for kind, key in ((FULL, "rope_theta"), (SLIDING, "rope_local_base_freq")):
        tree = dict(maps.get(kind, dict, {}))
        if kind == FULL:
            tree |= r.get("rope_scaling", dict, {})
        out[kind] = one_rope(
            r, Reader(tree, f"{r.where}: rope_parameters: {kind}"), r.positive(key, BASES[kind]), head_dim
        )
    return out


def write(cfg: BaseConfig) -> Tree:
    tree = gemma_tree(cfg, "gemma3_text", "Gemma3")
    if not cfg.text.head:
        tree["architectures"] = ["Gemma3TextModel"]
    ropes = {kind: RopeConfig(base=base) for kind, base in BASES.items()}
    for block in text_trunk(cfg).blocks:
        ropes[FULL if block.attn.window is None else SLIDING] = block.attn.rope or RopeConfig()
    dim = text_trunk(cfg).blocks[0].attn.head_dim
    return tree | {
        "rope_parameters": {kind: rope_map(x, dim) for kind, x in ropes.items()},
        "rope_theta": ropes[FULL].base,
        "rope_local_base_freq": ropes[SLIDING].base,
        "rope_scaling": rope_map(ropes[FULL], dim) if ropes[FULL].scaling else None,
    }


FAMILY = Family(
    ("gemma3_text", "gemma3"),
    read,
    write,
    rules,
    prefix="model.",
    spellings=(("model.language_model.", "model."), ("language_model.", "")),
)
