"""A tokenizer as GGUF's metadata: the inverse of vocab.py, for byte-level BPE and for BPE with byte fallback."""

import json
from typing import Any

import numpy as np
import tokenizers

from onebase.codec.text.roles import Roles
from onebase.errors import ConfigError
from onebase.interop.gguf.vocab import BYTE, CONTROL, SPLITTERS, UNKNOWN, UNUSED, USER, WHOLE_WORDS, splitter

_LEAST = -1e6
"""The score of what no merge makes."""


def vocabulary(
    inner: tokenizers.Tokenizer, roles: Roles, template: str | None, rows: int, pre: str | None = None
) -> dict[str, Any]:
    """Keys and values of a tokenizer for `rows` rows of embeddings; rows without a token get a name that no text has.

    Raises ConfigError for a tokenizer that llama.cpp has no name for.
    """
    tree = json.loads(inner.to_str())
    model = tree["model"]
    _writable(model)
    ids = inner.get_vocab(with_added_tokens=True)
    if max(ids.values()) >= rows:
        raise ConfigError(
            f"the tokenizer has ids up to {max(ids.values())}, the base {rows} rows", "give its own"
        )
    tokens = [f"[PAD{i}]" for i in range(rows)]
    kinds = np.full(rows, UNUSED, np.int32)
    for token, i in ids.items():
        kinds[i] = UNUSED if token == tokens[i] else 1  # a filler that was read comes back as one
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
    others = [t for t in roles.closing if t != roles.eos]
    if others:
        out["tokenizer.ggml.eot_token_id"] = ids[others[0]]
    if len(others) > 1:
        out["tokenizer.ggml.eom_token_id"] = ids[others[1]]
    out["tokenizer.ggml.add_bos_token"] = roles.bos is not None and roles.before == (roles.bos,)
    out["tokenizer.ggml.add_eos_token"] = roles.eos is not None and roles.after == (roles.eos,)
    return out | ({"tokenizer.chat_template": template} if template else {})


def _writable(model: dict[str, Any]) -> None:
    """Refuse a model that the format has no words for."""
    if model.get("type") != "BPE":
        raise ConfigError(f"a tokenizer of kind {model.get('type')} is not written as GGUF", "only BPE is")
    odd = next(
        (k for k in ("continuing_subword_prefix", "end_of_word_suffix", "dropout") if model.get(k)), None
    )
    if odd is not None:
        raise ConfigError(f"this tokenizer has {odd} {model[odd]!r}: GGUF has no word for it", "export to hf")
    missing = [f"<0x{b:02X}>" for b in range(256) if f"<0x{b:02X}>" not in model["vocab"]]
    if model.get("byte_fallback") and missing:
        raise ConfigError(
            f"this tokenizer falls back on tokens of bytes (byte_fallback), but has no {missing[0]!r} "
            f"({len(missing)} of 256 are missing): GGUF's kind of it has all",
            "export to hf",
        )


def _prepends(tree: dict[str, Any]) -> bool:
    """Does a text begin with a space that is not its own?"""
    todo = [tree.get("normalizer"), tree.get("pre_tokenizer")]
    while todo:
        step = todo.pop() or {}
        if step.get("type") == "Prepend" or step.get("prepend_scheme") in ("first", "always"):
            return True
        todo += [*step.get("normalizers", []), *step.get("pretokenizers", [])]
    return False


def _name(inner: tokenizers.Tokenizer, tree: dict[str, Any]) -> str:
    """The name that llama.cpp has for how this tokenizer splits a text."""
    mine = _splits(tree)
    for name in SPLITTERS:
        found = splitter(name)
        assert found is not None
        probe = tokenizers.Tokenizer(tokenizers.models.BPE())
        probe.pre_tokenizer = found[1]
        if found[0] is not None:
            probe.normalizer = found[0]
        if _splits(json.loads(probe.to_str())) == mine:
            _merges_or_words(inner, tree["model"], name)
            return name
    raise ConfigError(
        "llama.cpp has no name for how this tokenizer splits a text, and GGUF keeps only the name",
        "take a tokenizer of one of these: "
        + ", ".join(SPLITTERS)
        + " (recipes with `portable: true` do); or name the nearest, and have some texts split otherwise there",
    )


def _splits(tree: dict[str, Any]) -> tuple[Any, str]:
    """What the steps before merging do to a text, in one spelling: what no id depends on is left out, and so are ways to write the
    same pattern."""
    steps = tree.get("pre_tokenizer")
    parts = steps["pretokenizers"] if steps and steps["type"] == "Sequence" else [steps]
    plain = [{k: v for k, v in (part or {}).items() if k != "trim_offsets"} for part in parts]
    text = json.dumps(plain, sort_keys=True)
    for spelt, same in _SPELLINGS.items():
        text = text.replace(json.dumps(spelt)[1:-1], json.dumps(same)[1:-1])
    return tree.get("normalizer"), text


_SPELLINGS = {
    # Contractions in capitals too, which are written in three ways.
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])": "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "'(?i:[sdmt]|ll|ve|re)": "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    # What follows these classes is not in them, so it does not matter whether they would give back what they took.
    r"[^\r\n\p{L}\p{N}]?+": r"[^\r\n\p{L}\p{N}]?",
    r"[^\s\p{L}\p{N}]++": r"[^\s\p{L}\p{N}]+",
    # White space up to the last line break in it, either way.
    r"\s*[\r\n]+": r"\s*[\r\n]",
}


def _merges_or_words(inner: tokenizers.Tokenizer, model: dict[str, Any], name: str) -> None:
    """Under some names a word that is a token is taken as that token, under others merges alone decide. Where the tokenizer has it the
    other way, both must come to the same. Raises ConfigError naming the token that does not."""
    if bool(model.get("ignore_merges")) == (name in WHOLE_WORDS):
        return
    merges = [(a, b) for a, b in (m.split(" ") if isinstance(m, str) else m for m in model["merges"])]
    bare = tokenizers.models.BPE(model["vocab"], merges, ignore_merges=False)
    added = {t.content for t in inner.get_added_tokens_decoder().values()}
    odd = next((t for t in model["vocab"] if t not in added and len(bare.tokenize(t)) != 1), None)
    if odd is not None:
        raise ConfigError(
            f"llama.cpp splits texts as this tokenizer does under the name {name!r}, but merges {odd!r} otherwise",
            "export to hf",
        )
