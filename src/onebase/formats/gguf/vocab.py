"""Reads the tokenizer of a GGUF file: a vocabulary with merges (byte-level BPE) or with scores (SentencePiece BPE), and token roles.

The pre-tokenizer is not in the file, only its name (`tokenizer.ggml.pre`): see splits.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from onebase.errors import ArtifactError, ConfigError
from onebase.formats.gguf.splits import NAMES, named
from onebase.formats.reader import ConfigReader
from onebase.modality.text.roles import Roles

UNKNOWN, CONTROL, USER, UNUSED, BYTE = 2, 3, 4, 5, 6
"""Kinds of tokens (`tokenizer.ggml.token_type`); 1 is a normal token."""
MAX_TOKEN, MAX_LETTERS, MAX_MERGES = 1024, 2**24, 2**22
"""Maximum characters of a token, characters of a vocabulary, and merges, if merges are derived from scores: bounds time and memory."""


def read_tokenizer(r: ConfigReader) -> tuple[tokenizers.Tokenizer, Roles]:
    """Tokenizer and roles of a file. Raises ArtifactError or ConfigError for a damaged or unsupported tokenizer."""
    tokens = r.get("tokenizer.ggml.tokens", list)
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens) or not all(isinstance(t, str) for t in tokens):
        raise ArtifactError(f"{r.where}: a token appears twice in its vocabulary", "use another file")
    kinds = _numbers(r, "tokenizer.ggml.token_type", len(tokens), np.ones(len(tokens), np.int32))
    kind = r.get("tokenizer.ggml.model", str)
    try:
        if kind == "gpt2":
            inner = _byte_level(r, vocab)
        elif kind == "llama":
            inner = _scored(r, tokens, vocab, kinds)
        else:
            raise r.refuse("tokenizer.ggml.model", "gpt2 (byte-level BPE), llama (SentencePiece BPE)")
        roles = _roles(r, tokens, kind)
        _add(inner, tokens, kinds, roles)
    except (ArtifactError, ValueError, TypeError):
        raise
    except Exception as e:  # the library raises plain Exception
        if type(e) is not Exception:
            raise
        raise ArtifactError(f"{r.where}: its tokenizer is inconsistent: {e}", "use another file") from None
    return inner, roles


def _byte_level(r: ConfigReader, vocab: dict[str, int]) -> tokenizers.Tokenizer:
    if not r.has("tokenizer.ggml.pre"):  # llama.cpp then uses a pre-tokenizer that is no model's, and warns
        raise ConfigError(
            f"{r.where}: key 'tokenizer.ggml.pre' is missing, so the pre-tokenizer is not known",
            "convert the model again with a current llama.cpp, or add the key: gguf-new-metadata --pre-tokenizer NAME; known names: "
            + ", ".join(NAMES),
        )
    name = r.get("tokenizer.ggml.pre", str)
    split = named(name)
    if split is None:
        raise r.refuse("tokenizer.ggml.pre", ", ".join(NAMES))
    merges = [tuple(m.split(" ")) for m in r.get("tokenizer.ggml.merges", list)]
    if any(len(m) != 2 for m in merges):
        raise ArtifactError(f"{r.where}: a merge does not have two tokens", "use another file")
    inner = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=split.whole))
    if split.normalizer is not None:
        inner.normalizer = split.normalizer
    inner.pre_tokenizer = split.pre_tokenizer
    inner.decoder = decoders.ByteLevel()
    return inner


def _scored(r: ConfigReader, tokens: list[str], vocab: dict[str, int], kinds: Any) -> tokenizers.Tokenizer:
    scores = _numbers(r, "tokenizer.ggml.scores", len(tokens), None)
    if any(len(t) > MAX_TOKEN for t in tokens) or sum(map(len, tokens)) > MAX_LETTERS:
        raise ArtifactError(
            f"{r.where}: a token has more than {MAX_TOKEN:,} characters, or all together more than {MAX_LETTERS:,}",
            "use another file",
        )
    missing = [f"<0x{b:02X}>" for b in range(256) if f"<0x{b:02X}>" not in vocab]
    unk = r.get("tokenizer.ggml.unknown_token_id", int, 0)
    if missing or not 0 <= unk < len(tokens):
        raise ArtifactError(
            f"{r.where}: the vocabulary lacks {missing[0] if missing else 'its unknown token'}",
            "use another file",
        )
    bpe = models.BPE(
        vocab,
        merges_by_score(tokens, vocab, scores, kinds),
        unk_token=tokens[unk],
        fuse_unk=True,
        byte_fallback=True,
    )
    inner = tokenizers.Tokenizer(bpe)
    steps: list[Any] = [normalizers.Replace(" ", "▁")]
    back: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if r.get("tokenizer.ggml.add_space_prefix", bool, True):
        steps.insert(0, normalizers.Prepend("▁"))
        back.append(decoders.Strip(" ", 1, 0))
    inner.normalizer = normalizers.Sequence(steps)
    inner.decoder = decoders.Sequence(back)
    return inner


def merges_by_score(
    tokens: Sequence[str], vocab: dict[str, int], scores: Any, kinds: Any
) -> list[tuple[str, str]]:
    """SentencePiece joins the adjacent pieces whose union has the highest score: merges in order of the union's score.

    Every split of a token into two tokens is a merge, because any of them may occur.
    """
    order = np.lexsort((np.arange(len(tokens)), -scores.astype(np.float64)))
    merges: list[tuple[str, str]] = []
    for i in order[kinds[order] == 1].tolist():
        token = tokens[i]
        for n in range(1, len(token)):
            first = token[:n]
            if first in vocab and (last := token[n:]) in vocab:
                merges.append((first, last))
        if len(merges) > MAX_MERGES:
            raise ArtifactError(f"the vocabulary has more than {MAX_MERGES:,} merges", "use another file")
    return merges


def _add(inner: tokenizers.Tokenizer, tokens: list[str], kinds: Any, roles: Roles) -> None:
    """Control tokens and tokens with a role become special; user-defined tokens are matched before merging."""
    special = dict.fromkeys(
        [*(tokens[i] for i in np.flatnonzero((kinds == CONTROL) | (kinds == UNKNOWN))), *roles.names]
    )
    inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    inner.add_tokens(
        [AddedToken(tokens[i].replace("▁", " "), normalized=False) for i in np.flatnonzero(kinds == USER)]
    )


def _numbers(r: ConfigReader, key: str, size: int, default: Any) -> Any:
    values = r.data.get(key, default)
    r.has(key)
    if not isinstance(values, np.ndarray) or len(values) != size or values.dtype.kind not in "iuf":
        raise ArtifactError(
            f"{r.where}: '{key}' is not a list of {size:,} numbers, one a token", "use another file"
        )
    if not np.isfinite(values).all():
        raise ArtifactError(f"{r.where}: '{key}' has values that are not finite", "use another file")
    return values


def _roles(r: ConfigReader, tokens: list[str], kind: str) -> Roles:
    def token(name: str) -> str | None:
        key = f"tokenizer.ggml.{name}_token_id"
        if not r.has(key):
            return None
        i = r.get(key, int)
        if not 0 <= i < len(tokens):
            raise r.refuse(key, f"an id of its vocabulary, 0 to {len(tokens) - 1:,}")
        return tokens[i]

    bos, eos = token("bos"), token("eos")
    stop = dict.fromkeys(t for t in (eos, token("eot"), token("eom")) if t is not None)
    # Without the key the kind of tokenizer decides: SentencePiece's and Llama 3's begin with BOS.
    split = named(r.get("tokenizer.ggml.pre", str, "")) if kind == "gpt2" else None
    begins = kind == "llama" or (split is not None and split.begins)
    before = bos if r.get("tokenizer.ggml.add_bos_token", bool, begins) else None
    after = eos if r.get("tokenizer.ggml.add_eos_token", bool, False) else None
    return Roles(
        bos=bos,
        eos=eos,
        pad=token("padding"),
        unk=token("unknown") if kind == "llama" else None,
        stop=tuple(stop),
        before=() if before is None else (before,),
        after=() if after is None else (after,),
    )
