"""Fill-in-the-middle prompts: prefix, suffix, then the middle is generated (Bavarian et al., 2207.14255), as in objective infill."""

from onebase.base.folder import LoadedBase
from onebase.errors import UserError
from onebase.modality.text.tokenizer import Tokenizer
from onebase.objective.infill import InfillMarks

NAMES = (
    ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),  # ours, Qwen2.5-Coder, CodeGemma
    ("<fim_prefix>", "<fim_middle>", "<fim_suffix>"),  # StarCoder, Granite code
    ("<fim-prefix>", "<fim-middle>", "<fim-suffix>"),  # SantaCoder
    ("▁<PRE>", "▁<MID>", "▁<SUF>"),  # Code Llama
    ("<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>"),  # DeepSeek Coder
)
"""Names of the tokens before the prefix, the middle and the suffix, by family."""


def marks_of(tokenizer: Tokenizer) -> InfillMarks | None:
    """The tokens of a tokenizer that mark the parts; None if it has none."""
    for names in NAMES:
        ids = [i for name in names if (i := tokenizer.inner.token_to_id(name)) is not None]
        if len(ids) == len(names):
            return InfillMarks(*ids)
    return None


def infill_ids(base: LoadedBase, prefix: str, suffix: str) -> list[int]:
    """A prompt for the text between two texts. Raises UserError for a base that was not trained for infill."""
    remedy = "pretrain with objective: infill, or use a base that has such tokens (most code models)"
    recipe = base.record.get("config.recipe")
    objective = recipe.get("objective") if isinstance(recipe, dict) else None
    kind = objective.get("kind", "next_token") if isinstance(objective, dict) else objective
    if isinstance(recipe, dict) and kind != "infill":  # onebase's tokenizers always have the tokens
        raise UserError(
            f"a suffix is given, but this base was not trained for infill (objective: {kind or 'next_token'})",
            remedy,
        )
    tok = base.codec.tokenizer
    if (marks := marks_of(tok)) is None:
        raise UserError("a suffix is given, but this base's tokenizer has no tokens for infill", remedy)
    before, after = (tok.encode(text, follows="special") for text in (prefix, suffix))
    return tok.begun([marks.prefix, *before, marks.suffix, *after, marks.middle])
