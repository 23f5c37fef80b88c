"""Gemma 3 with images: SigLIP's tower, average pooling of patches, a norm and a matrix, and the text decoder, which reads the image vectors at
the positions of a token. The positions of one image attend to each other in both directions. A text-only config is read too.

Source: transformers `models/gemma3/`, read for names, defaults, pooling and masks; Gemma 3, 2503.19786.
"""

from dataclasses import replace
from math import isqrt

from onebase.base.config import BaseConfig
from onebase.base.links import ConnectorConfig, Link, connector_places
from onebase.errors import ConfigError
from onebase.formats.families import compose
from onebase.formats.families.gemma3 import FAMILY as TEXT
from onebase.formats.families.llava import CHECKPOINT_PREFIXES, MEMORY
from onebase.formats.families.towers import prefixed
from onebase.formats.family import Family, Tree
from onebase.formats.fields import Found, Put, Set, Table, View
from onebase.formats.hf.pictures import PROCESSOR
from onebase.formats.names import Names, rules_of
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Rules, Transpose
from onebase.modality.text.codec import TextCodec
from onebase.model.config import NormConfig

BEGIN, END, BREAK = "<start_of_image>", "<end_of_image>", "\n\n"
BEGINS = {"language_model.": "", "model.language_model.": "model."}
ALONE = ("model.layers.", "model.embed_tokens.", "model.norm.")
"""Prefixes of names if the text model was saved alone."""


class PatchPool:
    """The number of image vectors, and the size of their pooling. No window of the text may be shorter: otherwise attention between the
    positions of an image would depend on its direction."""

    def read(self, r: ConfigReader, found: Found) -> None:
        text, image = found["parts"]
        count, side = r.size("mm_tokens_per_image", 256), image.image.size // image.image.patch
        if isqrt(count) ** 2 != count or side % isqrt(count):
            raise r.refuse("mm_tokens_per_image", f"the square of a divisor of {side}, the patches per side")
        windows = [b.attn.window for b in text.trunks["text"].blocks if b.attn.window]
        if min(windows, default=count) < count:
            raise r.refuse("mm_tokens_per_image", f"at most the text's sliding_window ({min(windows)})")
        found["link.connector.pool"] = side // isqrt(count)

    def write(self, base: View, tree: Tree) -> None:
        tree["mm_tokens_per_image"] = connector_places(compose.the_connector(base.cfg), base.cfg.image)


class Around:
    """The tokens around an image; the tokenizer defines them (`with_tokenizer`)."""

    def read(self, r: ConfigReader, found: Found) -> None:
        for key, default in (("boi_token_index", 255_999), ("eoi_token_index", 256_000)):
            r.get(key, int, default)

    def write(self, base: View, tree: Tree) -> None:
        connector = compose.the_connector(base.cfg)
        if connector.before and connector.after:
            tree |= {"boi_token_index": connector.before[-1], "eoi_token_index": connector.after[0]}


def _norm(r: ConfigReader, found: Found) -> NormConfig:
    trunk = found["parts"][1].trunks["image"]
    return NormConfig(eps=trunk.blocks[0].norms.norm.eps, offset=1.0)


def _uncapped(r: ConfigReader, found: Found) -> None:
    why = "transformers does not cap the logits of a model with images"
    r.part("text_config").must("final_logit_softcapping", None, None, why)


TABLE = Table(
    (
        Put({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}),
        compose.OneMatrix(),
        compose.TextTrunkPart(BEGINS, tied=True, default="gemma3_text", scaled=True),
        compose.ImagePart("siglip_vision_model"),
        compose.ImageToken(("image_token_id", "image_token_index"), 262_144),
        Set("", _uncapped),
        PatchPool(),
        Set("link.connector.norm", _norm),
        Around(),
    ),
    link=Link(
        src="image", dst="text", how="embed", connector=ConnectorConfig(token=0, bias=False, both=True)
    ),
)
CONNECTOR: Names = [
    ("multi_modal_projector.mm_soft_emb_norm", "link.norm"),
    ("multi_modal_projector.mm_input_projection_weight", "link.first.weight", Transpose()),
]


def read(r: ConfigReader) -> BaseConfig:
    if r.has("vision_config"):
        return compose.read_whole(r, TABLE)
    image_tensor = next(
        (n for n in sorted(r.tensors) if "vision_tower." in n or "multi_modal_projector." in n), None
    )
    if image_tensor is not None:
        raise ConfigError(
            f"{r.where}: tensor {image_tensor!r} belongs to a model with images, but there is no 'vision_config'",
            "take an intact copy of config.json",
        )
    return TEXT.read(r)


def with_tokenizer(cfg: BaseConfig, codec: TextCodec) -> BaseConfig:
    """The config with the tokens around an image, and the empty lines around those, if the tokenizer has them."""
    begin, end = (codec.tokenizer.specials.get(name) for name in (BEGIN, END))
    if begin is None or end is None or not cfg.links:
        return cfg
    line = tuple(codec.tokenizer.encode(BREAK))
    connector = replace(compose.the_connector(cfg), before=(*line, begin), after=(end, *line))
    return replace(cfg, links=(replace(cfg.links[0], connector=connector),))


def rules(cfg: BaseConfig) -> Rules:
    text = prefixed(compose.part_rules(cfg, "text"), "language_model.")
    if not cfg.links:
        return text
    connector = rules_of(cfg, "text", CONNECTOR)
    return [*text, *prefixed(compose.part_rules(cfg, "image"), "vision_tower."), *connector]


def beside(cfg: BaseConfig) -> dict[str, Tree]:
    """The config of their processor of images and text."""
    places = connector_places(compose.the_connector(cfg), cfg.image)
    return {PROCESSOR: {"processor_class": "Gemma3Processor", "image_seq_length": places}}


FAMILY = Family(
    ("gemma3",),
    read,
    TABLE.write,
    rules,
    checkpoint_prefixes=(*CHECKPOINT_PREFIXES, *((begin, f"language_model.{begin}") for begin in ALONE)),
    with_tokenizer=with_tokenizer,
    beside=beside,
    memory=MEMORY,
)
