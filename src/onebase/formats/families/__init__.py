"""The supported families, by `model_type`: one file each."""

from onebase.errors import ConfigError
from onebase.formats.families import gemma3_vision, idefics3, llava, whisper
from onebase.formats.families.single import SINGLE, family_among
from onebase.formats.family import Family

FAMILIES: list[Family] = [
    gemma3_vision.FAMILY,  # before the text-only family, which reads this model_type as a part
    *SINGLE,
    # Images in texts.
    llava.FAMILY,
    idefics3.FAMILY,
    idefics3.SMOLVLM,
    # Speech.
    whisper.FAMILY,
]


def family_of(model_type: object, where: str) -> Family:
    """The family of this `model_type`. Raises ConfigError that lists the supported ones."""
    return family_among(FAMILIES, model_type, where)


def register(family: Family) -> None:
    """Register a family of another package; one of a single trunk may be a part of composed bases too. Raises ConfigError if another family
    reads its `model_type`."""
    taken = {t for f in FAMILIES if f is not family for t in f.model_types} & set(family.model_types)
    if taken:
        raise ConfigError(
            f"two families read model_type {min(taken)!r}", "give one of them other model types"
        )
    if family not in FAMILIES:
        FAMILIES.append(family)
        SINGLE.append(family)
