"""Writes a tokenizer as GGUF metadata: the inverse of vocab.py, for byte-level BPE and for BPE with byte fallback.

The format has a vocabulary, the name of a pre-tokenizer and a few flags. Anything else would change ids, so the metadata are read back and
compared with the original tokenizer (formats/tokenizer_equality.py) before the file is written.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import tokenizers

from onebase.errors import ConfigError
from onebase.formats.gguf.splits import SPLITS, alike
from onebase.formats.gguf.vocab import BYTE, CONTROL, UNKNOWN, UNUSED, USER, read_tokenizer
from onebase.formats.hf.tokenizer_files import with_end_of_turn
from onebase.formats.reader import ConfigReader
from onebase.formats.tokenizer_equality import lost_ends, other_frame, other_ids, other_talk
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.pieces import Follows
from onebase.modality.text.roles import Roles
from onebase.modality.text.template import ChatTemplate
from onebase.modality.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_LEAST = -1e6
"""The score of tokens that no merge produces."""
_REMEDY = "export to hf"
_NEAREST = (
    f"{_REMEDY}; or name a pre-tokenizer (pre=default) and accept that some texts are split differently"
)


def vocabulary(
    inner: tokenizers.Tokenizer, roles: Roles, template: str | None, rows: int, pre: str | None = None
) -> dict[str, Any]:
    """Metadata of a tokenizer for `rows` rows of embeddings; rows without a token get a filler name.

    Raises ConfigError for a tokenizer whose pre-tokenizer has no name in llama.cpp.
    """
    tree = json.loads(inner.to_str())
    model = tree["model"]
    _writable(model)
    ids = inner.get_vocab(with_added_tokens=True)
    if max(ids.values()) >= rows:
        raise ConfigError(
            f"the tokenizer has ids up to {max(ids.values())}, the base {rows} rows",
            "use the base's own tokenizer",
        )
    tokens = [f"[PAD{i}]" for i in range(rows)]
    kinds = np.full(rows, UNUSED, np.int32)
    for token, i in ids.items():
        kinds[i] = UNUSED if token == tokens[i] else 1  # fillers of an imported file stay fillers
        tokens[i] = token
    for i, added in inner.get_added_tokens_decoder().items():
        kinds[i] = CONTROL if added.special else USER
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    out: dict[str, Any] = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds}
    if model.get("byte_fallback"):
        out = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"} | out
        scores = np.full(rows, _LEAST, np.float32)
        for rank, pair in reversed(list(enumerate(merges))):
            scores[ids["".join(pair)]] = -rank
        out["tokenizer.ggml.scores"] = scores
        out["tokenizer.ggml.add_space_prefix"] = _prepends(tree)
        for b in range(256):
            kinds[ids[f"<0x{b:02X}>"]] = BYTE
        if model.get("unk_token") in ids:
            kinds[ids[model["unk_token"]]] = UNKNOWN
            out["tokenizer.ggml.unknown_token_id"] = ids[model["unk_token"]]
    else:
        out = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre or _name(inner, tree)} | out
        out["tokenizer.ggml.merges"] = [" ".join(m) for m in merges]
    for key, role in (("bos", roles.bos), ("eos", roles.eos), ("padding", roles.pad)):
        if role is not None:
            out[f"tokenizer.ggml.{key}_token_id"] = ids[role]
    others = [t for t in roles.stop if t != roles.eos]
    if others:
        out["tokenizer.ggml.eot_token_id"] = ids[others[0]]
    if len(others) > 1:
        out["tokenizer.ggml.eom_token_id"] = ids[others[1]]
    out["tokenizer.ggml.add_bos_token"] = roles.bos is not None and roles.before == (roles.bos,)
    out["tokenizer.ggml.add_eos_token"] = roles.eos is not None and roles.after == (roles.eos,)
    return out | ({"tokenizer.chat_template": template} if template else {})


def _writable(model: dict[str, Any]) -> None:
    """Refuse a tokenizer model that the format cannot express."""
    if model.get("type") != "BPE":
        raise ConfigError(
            f"a tokenizer of kind {model.get('type')} cannot be written as GGUF (tokenizer.ggml.model)",
            "only BPE is supported",
        )
    odd = next(
        (k for k in ("continuing_subword_prefix", "end_of_word_suffix", "dropout") if model.get(k)), None
    )
    if odd is not None:
        raise ConfigError(f"this tokenizer has {odd} {model[odd]!r}: GGUF cannot express it", "export to hf")
    missing = [f"<0x{b:02X}>" for b in range(256) if f"<0x{b:02X}>" not in model["vocab"]]
    if model.get("byte_fallback") and missing:
        raise ConfigError(
            f"this tokenizer has byte_fallback, but no token {missing[0]!r} "
            f"({len(missing)} of 256 are missing): GGUF (tokenizer.ggml.model 'llama') needs all of them",
            "export to hf",
        )


def _prepends(tree: dict[str, Any]) -> bool:
    """Does the tokenizer add a space before a text?"""
    todo = [tree.get("normalizer"), tree.get("pre_tokenizer")]
    while todo:
        step = todo.pop() or {}
        if step.get("type") == "Prepend" or step.get("prepend_scheme") in ("first", "always"):
            return True
        todo += [*step.get("normalizers", []), *step.get("pretokenizers", [])]
    return False


def _name(inner: tokenizers.Tokenizer, tree: dict[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer."""
    matches = alike(tree)
    if not matches:
        raise ConfigError(
            "llama.cpp has no name for this pre-tokenizer, and GGUF stores only the name (tokenizer.ggml.pre)",
            "use a tokenizer that splits like one of these: "
            + ", ".join(s.names[0] for s in SPLITS)
            + " (recipes with `portable: true` do); or name the nearest and accept that some texts are split differently",
        )
    whole, odd = bool(tree["model"].get("ignore_merges")), None
    for split in matches:
        if split.whole == whole or (odd := odd or _unlike_its_merges(inner, tree["model"])) is None:
            break
    else:
        raise ConfigError(
            f"llama.cpp splits texts like this tokenizer under the name {matches[0].names[0]!r}, but merges {odd!r} differently",
            "export to hf",
        )
    if split.near:
        log.warning(
            "with tokenizer.ggml.pre %r llama.cpp splits words with combining marks or non-ASCII capitals differently from the tokenizer",
            split.names[0],
        )
    return split.names[0]


def _unlike_its_merges(inner: tokenizers.Tokenizer, model: dict[str, Any]) -> str | None:
    """A token that merges alone do not produce from its own text: only then does `ignore_merges` matter."""
    merges = [(a, b) for a, b in (m.split(" ") if isinstance(m, str) else m for m in model["merges"])]
    bare = tokenizers.models.BPE(model["vocab"], merges, ignore_merges=False)
    added = {t.content for t in inner.get_added_tokens_decoder().values()}
    return next((t for t in model["vocab"] if t not in added and len(bare.tokenize(t)) != 1), None)


def prove(
    metadata: Mapping[str, Any],
    inner: tokenizers.Tokenizer,
    roles: Roles,
    template: str | None,
    *,
    chat: ChatTemplate | None = None,
    nearest: bool = False,
) -> None:
    """Refuse metadata that do not reproduce the tokenizer. template: as written; chat: the original, if it differs. nearest: the user named the
    pre-tokenizer and accepts that some texts are split differently: everything except spaces must survive a round trip.

    Raises ConfigError with the difference and the text."""
    where = "the exported file"
    again, roles_again = read_tokenizer(ConfigReader(dict(metadata), where))
    ours = Tokenizer(tokenizers.Tokenizer.from_str(inner.to_str()), roles)
    theirs = Tokenizer(again, roles_again)
    if frame := other_frame(ours, theirs):
        raise ConfigError(
            f"this tokenizer reads a text as {frame}: GGUF can only add BOS before it and EOS after it (tokenizer.ggml.add_bos_token, add_eos_token)",
            _REMEDY,
        )
    follows: list[Follows] = ["nothing", "special"] if template else ["nothing"]
    if difference := other_ids(ours, theirs, follows, nearest=nearest):
        raise ConfigError(f"llama.cpp would not read text like this tokenizer: {difference}", _NEAREST)
    chat = chat or ChatTemplate(template or "", tuple(ours.specials), where, roles)
    there = ChatTemplate(template or "", tuple(theirs.specials), where, roles_again)
    if lost := lost_ends(ours, with_end_of_turn(theirs, there)):
        raise ConfigError(
            f"this base has {len(roles.stop)} stop tokens, GGUF has keys for three (tokenizer.ggml.eos_token_id, eot_token_id, eom_token_id): {lost[0]!r} would not end a generation",
            _REMEDY,
        )
    talk = None if nearest else other_talk(TextCodec(ours, chat), TextCodec(theirs, there))
    if template and talk:
        raise ConfigError(f"llama.cpp would not read a conversation like this base: {talk}", _NEAREST)
