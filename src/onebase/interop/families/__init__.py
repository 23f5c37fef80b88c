"""The families we know, by `model_type`: one file each."""

from onebase.errors import ConfigError
from onebase.interop.families import (
    bert,
    clip,
    dinov2,
    distilbert,
    esm,
    gemma2,
    gemma3,
    gpt2,
    idefics3,
    llama,
    llava,
    mistral,
    modernbert,
    phi3,
    qwen2,
    qwen3,
    roberta,
    siglip,
    smollm3,
    vit,
    whisper,
)
from onebase.interop.family import Family

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    mistral.FAMILY,
    gpt2.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    gemma2.FAMILY,
    gemma3.FAMILY,
    phi3.FAMILY,
    smollm3.FAMILY,
    # Encoders.
    bert.FAMILY,
    roberta.FAMILY,
    roberta.XLM,
    distilbert.FAMILY,
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
    llava.FAMILY,
    idefics3.FAMILY,
    idefics3.SMOLVLM,
    # Speech.
    whisper.FAMILY,
)


def family_of(model_type: object, where: str) -> Family:
    """The family that reads this `model_type`. Raises ConfigError naming those that are known."""
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(t for f in FAMILIES for t in f.model_types))
    raise ConfigError(f"{where}: model_type {model_type!r} is of no family that is known", f"known: {known}")
