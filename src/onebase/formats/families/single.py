"""The families of one trunk, or of two with a shared space, by `model_type`: possible parts of a composed base."""

from collections.abc import Iterable

from onebase.errors import ConfigError
from onebase.formats.families import (
    bert,
    clip,
    dinov2,
    distilbert,
    esm,
    gemma2,
    gemma3,
    gpt2,
    granite,
    llama,
    mistral,
    modernbert,
    mpnet,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    roberta,
    siglip,
    smollm3,
    vit,
)
from onebase.formats.family import Family

SINGLE: list[Family] = [
    llama.FAMILY,
    mistral.FAMILY,
    gpt2.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    gemma2.FAMILY,
    gemma3.FAMILY,
    phi3.FAMILY,
    smollm3.FAMILY,
    olmo2.FAMILY,
    granite.FAMILY,
    # Encoders.
    bert.FAMILY,
    roberta.FAMILY,
    roberta.XLM,
    distilbert.FAMILY,
    mpnet.FAMILY,
    modernbert.FAMILY,
    esm.FAMILY,
    # Vision.
    vit.FAMILY,
    dinov2.FAMILY,
    dinov2.REGISTERS,
    clip.VISION_FAMILY,
    siglip.VISION_FAMILY,
    # Images and text.
    clip.FAMILY,
    siglip.FAMILY,
]


def family_among(families: Iterable[Family], model_type: object, where: str) -> Family:
    """The family among these that reads this `model_type`. Raises ConfigError that lists the supported ones."""
    known: list[str] = []
    for family in families:
        if model_type in family.model_types:
            return family
        known += family.model_types
    raise ConfigError(
        f"{where}: model_type {model_type!r} is not supported",
        f"supported: {', '.join(sorted(known))}",
    )
