"""The families we know, by `model_type`: one file each."""

from onebase.interop.families import idefics3, llava, whisper
from onebase.interop.families.single import SINGLE, family_among
from onebase.interop.family import Family

FAMILIES: tuple[Family, ...] = (
    *SINGLE,
    # Images in texts.
    llava.FAMILY,
    idefics3.FAMILY,
    idefics3.SMOLVLM,
    # Speech.
    whisper.FAMILY,
)


def family_of(model_type: object, where: str) -> Family:
    """The family that reads this `model_type`. Raises ConfigError naming those that are known."""
    return family_among(FAMILIES, model_type, where)
