"""What models of images and text share: towers with their norms before their parts, rules under a prefix, parts of a nested config."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from onebase.base.config import BaseConfig
from onebase.base.links import Link, PairConfig
from onebase.codec.image.config import ImageCodecConfig, PixelsConfig, PoolConfig
from onebase.codec.text.modules import TextCodecConfig
from onebase.errors import ConfigError
from onebase.interop.families.encoder import (
    COUNTED,
    MAX_DEPTH,
    MAX_VOCABULARY,
    PLAIN,
    THEIRS,
    block_rules,
    both,
    encoder,
)
from onebase.interop.families.vision import channels, patch_rule, square
from onebase.interop.family import Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rule, Rules, Tie, rename
from onebase.model.config import NormConfig, TrunkConfig

PARTS = {
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.out_proj",
    "attn_norm": "layer_norm1",
    "ff.up": "mlp.fc1",
    "ff.down": "mlp.fc2",
    "ff_norm": "layer_norm2",
}
HALVES = PixelsConfig()
"""SigLIP's: the whole picture made square, values from -1 to 1."""
TEXT, IMAGE = "codecs.text.stem", "codecs.image"
LINK = "links.image_text"


def tower(
    r: Reader,
    like: Mapping[str, int],
    *,
    activation: str,
    eps: float,
    direction: Literal["causal", "both"] = "both",
    normed: bool = False,
) -> TrunkConfig:
    """A trunk by its usual keys. `like`: hidden_size, intermediate_size, num_hidden_layers, num_attention_heads where they are missing;
    normed: its input is."""
    width = r.size("hidden_size", like["hidden_size"])
    heads = r.size("num_attention_heads", like["num_attention_heads"])
    if width % heads:
        raise r.refuse("num_attention_heads", f"a divisor of hidden_size ({width})")
    trunk = encoder(
        width=width,
        depth=r.size("num_hidden_layers", like["num_hidden_layers"], MAX_DEPTH),
        heads=heads,
        hidden=r.size("intermediate_size", like["intermediate_size"]),
        activation=r.one_of("hidden_act", PLAIN, activation),
        norm=NormConfig(kind="layer", eps=r.positive("layer_norm_eps", eps)),
        where="pre",
        normed=normed,
    )
    return replace(trunk, direction=direction)


def tower_tree(trunk: TrunkConfig) -> Tree:
    """The keys that `tower` reads."""
    block = trunk.blocks[0]
    return {
        "hidden_size": trunk.width,
        "intermediate_size": block.ff.hidden,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.heads,
        "hidden_act": THEIRS.get(block.ff.activation, block.ff.activation),
        "layer_norm_eps": block.norms.norm.eps,
    }


def text_codec(r: Reader, vocabulary: int, positions: int) -> TextCodecConfig:
    """A table of tokens and one of positions; no tokens are predicted."""
    context = r.size("max_position_embeddings", positions)
    return r.checked(
        lambda: TextCodecConfig(
            vocab_size=r.size("vocab_size", vocabulary, MAX_VOCABULARY),
            context=context,
            positions=context,
            head=False,
        )
    )


def text_tree(cfg: BaseConfig) -> Tree:
    """The keys of the text tower."""
    codec = cfg.text
    return tower_tree(cfg.trunks["text"]) | {
        "vocab_size": codec.vocab_size,
        "max_position_embeddings": codec.context,
    }


def image_codec(
    r: Reader,
    patch: int,
    pool: PoolConfig,
    *,
    bias: bool,
    class_token: bool,
    pixels: PixelsConfig = HALVES,
) -> ImageCodecConfig:
    """Square patches of a square image. patch: their size where no key says it; pixels: how pictures are prepared where no file says it."""
    return r.checked(
        lambda: ImageCodecConfig(
            kind="image",
            size=square(r, "image_size", 224),
            patch=square(r, "patch_size", patch),
            channels=channels(r),
            bias=bias,
            class_token=class_token,
            pool=pool,
            pixels=pixels,
        )
    )


def image_tree(cfg: BaseConfig) -> Tree:
    """The keys of the image tower."""
    codec = cfg.image
    return tower_tree(cfg.trunks["image"]) | {
        "image_size": codec.size,
        "patch_size": codec.patch,
        "num_channels": codec.channels,
    }


def text_rules(cfg: BaseConfig) -> Rules:
    """The text tower, by the names of one saved alone."""
    return [
        rename("embeddings.token_embedding.weight", f"{TEXT}.weight"),
        rename("embeddings.position_embedding.weight", f"{TEXT}.positions"),
        *both("final_layer_norm", "trunks.text.final_norm"),
        *block_rules(cfg, "encoder.layers.{i}", PARTS),
        COUNTED,
    ]


def image_rules(cfg: BaseConfig) -> list[Rule | Tie | Ignore]:
    """The image tower up to its last norm, by the names of one saved alone."""
    a = "embeddings.patch_embedding"
    bias = [rename(f"{a}.bias", f"{IMAGE}.bias")] if cfg.image.bias else []
    return [
        patch_rule(cfg, f"{a}.weight"),
        *bias,
        rename("embeddings.position_embedding.weight", f"{IMAGE}.positions"),
        *both("post_layernorm", "trunks.image.final_norm"),
        *block_rules(cfg, "encoder.layers.{i}", PARTS, "image"),
        COUNTED,
    ]


def prefixed(rules: Rules, prefix: str) -> Rules:
    """The rules of a part as those of a whole where its names begin with `prefix`."""
    return moved(rules, {"": prefix})


def moved(rules: Rules, begins: Mapping[str, str]) -> Rules:
    """The rules of a part, with names that begin with a key of `begins` (the first that fits) beginning with its value."""

    def named(name: str) -> str:
        old = next((b for b in begins if name.startswith(b)), "")
        return begins.get(old, "") + name.removeprefix(old)

    out: list[Rule | Tie | Ignore] = []
    for r in rules:
        if isinstance(r, Rule):
            out.append(Rule(tuple(named(n) for n in r.theirs), r.ours, r.steps))
        elif isinstance(r, Tie):
            out.append(Tie(named(r.theirs), r.ours))
        else:  # wherever the part's names begin: a checkpoint may spell that in several ways
            out.append(Ignore(rf"(.*\.)?(?:{r.pattern})", r.why, r.check))
    return out


def half(cfg: BaseConfig, kind: Literal["text", "image"]) -> BaseConfig:
    """The base of one trunk of a base. Raises ConfigError where it lacks that."""
    if kind not in cfg.codecs:
        raise ConfigError(f"this base has no trunk for {kind}", "this layout is of images and text")
    return BaseConfig(trunks={kind: cfg.trunks[kind]}, codecs={kind: cfg.codecs[kind]})


def linked(text: BaseConfig, image: BaseConfig, link: Link) -> BaseConfig:
    """Trunks and codecs of two bases in one."""
    return BaseConfig(trunks=text.trunks | image.trunks, codecs=text.codecs | image.codecs, links=(link,))


def the_pair(cfg: BaseConfig) -> PairConfig:
    """The one link. Raises ConfigError where that is none of a common space."""
    pair = cfg.links[0].pair if len(cfg.links) == 1 else None
    if pair is None:
        raise ConfigError("this base has no space for images and text", "this layout is of such bases")
    return pair


def sub_config(r: Reader, key: str) -> Reader:
    """The config of a part; older writers put the same under `<key>_dict`, which wins there. Without either, one of defaults."""
    name = f"{key}_dict" if r.has(f"{key}_dict") else key
    return Reader(r.get(name, dict, {}), f"{r.where}: {name}", r.tensors)
