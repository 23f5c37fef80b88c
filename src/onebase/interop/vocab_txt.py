"""Tokenizers that are a list of tokens, `vocab.txt`: BERT's words in pieces, and the letters of proteins (ESM). As a tokenizer.json.

`tokenizer_class` says which of the two a list is meant for, or in older folders the kind of the model. Source: transformers `tokenization_bert.py` and `tokenization_esm.py`, read for names
and defaults.
"""

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from onebase.errors import ArtifactError
from onebase.interop.folder import MAX_JSON
from onebase.interop.reader import Reader
from onebase.interop.tokenizer_keys import BERT, kind_of

VOCAB = "vocab.txt"
PROTEIN = ("EsmTokenizer",)
Tree = dict[str, Any]


def read_vocab(folder: Path, said: Tree) -> tuple[Tree, Tree] | None:
    """The tree of a tokenizer.json, and `said` (tokenizer_config.json) with the names that are its defaults; None where the folder
    has no such list, or one for another tokenizer. Raises ArtifactError for a damaged list."""
    kind = kind_of(folder, said)
    if kind not in BERT.union(PROTEIN) or not (folder / VOCAB).is_file():
        return None
    vocab = _vocab(folder / VOCAB)
    said = (_BERT if kind in BERT else _PROTEIN) | {k: v for k, v in said.items() if v is not None}
    try:
        inner = _bert(vocab, said, folder) if kind in BERT else _protein(vocab, said)
    except KeyError as e:
        raise ArtifactError(f"{folder / VOCAB} lacks the token {e}", "take an intact copy of it") from None
    except Exception as e:  # the library raises bare Exception
        if type(e) is not Exception:
            raise
        raise ArtifactError(
            f"{folder / VOCAB} makes no tokenizer: {e}", "take an intact copy of it"
        ) from None
    tree: Tree = json.loads(inner.to_str())
    return tree, said


_BERT = {f"{k}_token": f"[{k.upper()}]" for k in ("unk", "sep", "pad", "cls", "mask")}
_PROTEIN = {f"{k}_token": f"<{k}>" for k in ("unk", "cls", "pad", "mask", "eos")}


def _vocab(file: Path) -> dict[str, int]:
    if file.stat().st_size > MAX_JSON:
        raise ArtifactError(f"{file} has {file.stat().st_size:,} bytes", f"at most {MAX_JSON:,} are read")
    try:
        names = [line.rstrip("\r\n") for line in file.read_text(encoding="utf-8").split("\n")]
    except UnicodeDecodeError as e:
        raise ArtifactError(f"{file} is no text: {e}", "take an intact copy of it") from None
    return {name: i for i, name in enumerate(names[:-1] if names[-1] == "" else names)}


def _name(said: Tree, key: str) -> str:
    value = said[f"{key}_token"]
    return str(value["content"] if isinstance(value, dict) else value)


def _framed(inner: Tokenizer, vocab: dict[str, int], first: str, last: str) -> Tokenizer:
    inner.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B {last}",
        special_tokens=[(first, vocab[first]), (last, vocab[last])],
    )
    return inner


def _bert(vocab: dict[str, int], said: Tree, folder: Path) -> Tokenizer:
    r = Reader(said, str(folder / "tokenizer_config.json"))
    inner = Tokenizer(models.WordPiece(vocab, unk_token=_name(said, "unk")))
    inner.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=r.get("tokenize_chinese_chars", bool, True),
        strip_accents=r.get("strip_accents", bool) if r.has("strip_accents") else None,
        lowercase=r.get("do_lower_case", bool, True),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##")
    return _framed(inner, vocab, _name(said, "cls"), _name(said, "sep"))


def _protein(vocab: dict[str, int], said: Tree) -> Tokenizer:
    """Every token is a word of its own wherever it stands; what is between two of them is one unknown."""
    if len(vocab) > 4096:
        raise ArtifactError(f"{VOCAB} lists {len(vocab):,} letters of proteins", "take an intact copy of it")
    inner = Tokenizer(models.WordLevel(vocab, unk_token=_name(said, "unk")))
    words = sorted((n for n in vocab if not (n.startswith("<") and n.endswith(">"))), key=len, reverse=True)
    cut = pre_tokenizers.Split(Regex("|".join(map(re.escape, words)) or "(?!)"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), cut])
    return _framed(inner, vocab, _name(said, "cls"), _name(said, "eos"))
