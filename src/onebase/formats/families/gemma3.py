"""Gemma 3, text: Gemma 2 with norms on queries and keys instead of soft-caps, five blocks with a window to one without, and a separate
rotary base for each of the two kinds.

Source: transformers `models/gemma3/configuration_gemma3.py`, read for names, defaults and the meaning of older keys.
"""

from dataclasses import replace

from onebase.base.config import BaseConfig
from onebase.formats.families.decoder import FULL, SLIDING, Windows, decoder_family
from onebase.formats.families.gemma2 import NORM, SANDWICH, gemma_lines, gemma_trunk
from onebase.formats.families.rotary import one_rope, rope_map
from onebase.formats.family import Tree
from onebase.formats.fields import Each, Found, Must, Put, Set, View, number
from onebase.formats.reader import ConfigReader
from onebase.model.config import RopeConfig

BASES = {FULL: 1_000_000.0, SLIDING: 10_000.0}


class Ropes:
    """Rotary positions by kind of block: `rope_parameters` (transformers 5), or `rope_theta`, `rope_local_base_freq` and `rope_scaling`
    (for the blocks without a window)."""

    def read(self, r: ConfigReader, found: Found) -> None:
        maps = r.part("rope_parameters") if r.has("rope_parameters") else ConfigReader({}, r.where)
        for key in sorted(maps.data.keys() - BASES.keys()):
            maps.must(key, None, None, f"it must have one map for each of {', '.join(BASES)}")
        ropes = {}
        for kind, key in ((FULL, "rope_theta"), (SLIDING, "rope_local_base_freq")):
            tree = dict(maps.get(kind, dict, {}))
            if kind == FULL:
                tree |= r.get("rope_scaling", dict, {})
            own, theta = (
                ConfigReader(tree, f"{r.where}: rope_parameters: {kind}"),
                r.positive(key, BASES[kind]),
            )
            ropes[kind] = one_rope(r, own, theta, found["block.attn.head_dim"])
        found["block.attn.rope"] = Each(
            ropes[FULL if window is None else SLIDING] for window in found["block.attn.window"]
        )

    def write(self, base: View, tree: Tree) -> None:
        ropes = {kind: RopeConfig(base=theta) for kind, theta in BASES.items()}
        for window, rope in zip(base.each("block.attn.window"), base.each("block.attn.rope"), strict=True):
            ropes[FULL if window is None else SLIDING] = rope or RopeConfig()
        dim = base["block.attn.head_dim"]
        tree |= {
            "rope_parameters": {kind: rope_map(x, dim) for kind, x in ropes.items()},
            "rope_theta": ropes[FULL].base,
            "rope_local_base_freq": ropes[SLIDING].base,
            "rope_scaling": rope_map(ropes[FULL], dim) if ropes[FULL].scaling else None,
        }


def _pattern(r: ConfigReader, found: Found) -> int:
    return r.size("sliding_window_pattern", r.size("_sliding_window_pattern", 6))


TEXT = decoder_family(
    "gemma3_text",
    Must("attn_logit_softcapping", None, "it is not clear whether scores should be capped"),
    Put({"attn_logit_softcapping": None}),
    *gemma_lines("gemma3_text", "Gemma3", 131072),
    Set("pattern", _pattern),
    Windows(lambda found, i: (i + 1) % found["pattern"] != 0, always=True),
    Ropes(),
    number("final_logit_softcapping", "codec.softcap", null=None),
    number("rms_norm_eps", "block.attn.qk_norm.eps", 1e-6),
    trunk=gemma_trunk(qk_norm=NORM),
    block=SANDWICH,
)


def read(r: ConfigReader) -> BaseConfig:
    return TEXT.read(r.part("text_config") if r.has("text_config") else r)


def write(cfg: BaseConfig) -> Tree:
    tree = TEXT.write(cfg)
    return tree if cfg.text.head else tree | {"architectures": ["Gemma3TextModel"]}


FAMILY = replace(
    TEXT,
    model_types=("gemma3_text", "gemma3"),
    read=read,
    write=write,
    checkpoint_prefixes=(("model.language_model.", "model."), ("language_model.", "")),
)
