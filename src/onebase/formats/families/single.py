"""The families of one trunk, or of two that meet in one space, by `model_type`: what a base of several parts may be composed of."""

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
    """The one of these that reads this `model_type`. Raises ConfigError naming those that are known."""
    known: list[str] = []
    for family in families:
        if model_type in family.model_types:
            return family
        known += family.model_types
    raise ConfigError(
        f"{where}: model_type {model_type!r} is of no family that is known",
        f"known: {', '.join(sorted(known))}",
    )
