"""Reads older tokenizer files as the tree of a tokenizer.json: byte-level BPE in `vocab.json` and `merges.txt` (GPT-2, RoBERTa, CLIP,
Whisper, Qwen 2), and lists of tokens in `vocab.txt` (WordPiece of BERT, amino acids of ESM).

The files do not define the pre-tokenizer; `tokenizer_class` does, or in older folders `model_type`. Source: transformers
`tokenization_gpt2.py`, `_roberta.py`, `_clip.py`, `_whisper.py`, `_qwen2.py`, `_bert.py`, `_esm.py`, read for steps, names and defaults.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from onebase.errors import ArtifactError
from onebase.formats.hf.files import MAX_JSON, read_json
from onebase.formats.hf.tokenizer_keys import BERT, kind_of
from onebase.formats.reader import ConfigReader

LETTERS = 4096
"""Maximum tokens of a protein vocabulary; each becomes a part of one pattern."""
END = "</w>"
"""The suffix of CLIP's tokens at the end of a word."""
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
Tree = dict[str, Any]
Vocab = dict[str, int]
Merges = list[tuple[str, str]]
_PAIR, _LIST = ("vocab.json", "merges.txt"), ("vocab.txt",)
_MEND = "take an intact copy of it"


def read_vocab_files(folder: Path, tok_config: Tree) -> tuple[Tree, Tree] | None:
    """The tree of a tokenizer.json, and `tok_config` (tokenizer_config.json) with its class's default names; None if the folder has no such
    files, or those of another tokenizer. Raises ArtifactError for damaged files."""
    reader = READERS.get(str(kind_of(folder, tok_config)))
    if reader is None or not all((folder / n).is_file() for n in reader[0]):
        return None
    files, names, make = reader
    tok_config = names | {k: v for k, v in tok_config.items() if v is not None}
    r = ConfigReader(tok_config, str(folder / "tokenizer_config.json"))
    vocab, merges = _read(*(folder / n for n in files))
    try:
        inner = make(vocab, merges, r)
    except KeyError as e:
        raise ArtifactError(f"{folder / files[0]} lacks the token {e}", _MEND) from None
    except Exception as e:  # the library raises bare Exception: for a merge of unknown tokens, say
        if type(e) is not Exception:
            raise
        where = " and ".join(str(folder / n) for n in files)
        raise ArtifactError(f"{where} do not form a tokenizer: {e}", "take intact copies") from None
    tree: Tree = json.loads(inner.to_str())
    return tree, tok_config


def _read(vocab: Path, merges: Path | None = None) -> tuple[Vocab, Merges]:
    """Vocabulary and merges, by the library's own readers. They accept invalid ids, so those are checked here."""
    last = merges or vocab
    if last.stat().st_size > MAX_JSON:
        raise ArtifactError(f"{last} has {last.stat().st_size:,} bytes", f"at most {MAX_JSON:,} are read")
    whole = {} if merges is None else read_json(vocab)
    ids = [i for i in whole.values() if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**31]
    if merges is not None and not len(whole) == len(ids) == len(set(ids)) > 0:
        raise ArtifactError(f"{vocab} is not a map of tokens to distinct ids", _MEND)
    try:
        if merges is None:
            return models.WordPiece.read_file(str(vocab)), []
        return whole, models.BPE.read_file(str(vocab), str(merges))[1]
    except Exception as e:
        if type(e) is not Exception:
            raise
        raise ArtifactError(f"{last} cannot be read: {e}", _MEND) from None


def with_word_ends(tree: Tree) -> Tree:
    """A tokenizer.json whose decoder replaces the end-of-word suffix by a space: CLIP's own file leaves that to the caller."""
    model, decoder = tree.get("model"), tree.get("decoder")
    end = model.get("end_of_word_suffix") if isinstance(model, dict) else None
    if not end or not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        return tree
    # The last suffix first. (The library's Strip would do it too, but crashes the interpreter on an empty text.)
    last = {"type": "Replace", "pattern": {"Regex": re.escape(str(end)) + r"\z"}, "content": ""}
    space = {"type": "Replace", "pattern": {"String": end}, "content": " "}
    return tree | {"decoder": {"type": "Sequence", "decoders": [decoder, last, space]}}


def _name(r: ConfigReader, key: str) -> str:
    value = r.data[f"{key}_token"]
    return str(value["content"] if isinstance(value, dict) else value)


def _gpt2(vocab: Vocab, merges: Merges, r: ConfigReader) -> Tokenizer:
    inner = Tokenizer(models.BPE(vocab, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=r.get("add_prefix_space", bool, False))
    inner.decoder = decoders.ByteLevel()
    return inner


def _roberta(vocab: Vocab, merges: Merges, r: ConfigReader) -> Tokenizer:
    inner = _gpt2(vocab, merges, r)
    inner.post_processor = _pair(vocab, r, "sep", "cls")
    return inner


def _clip(vocab: Vocab, merges: Merges, r: ConfigReader) -> Tokenizer:
    inner = Tokenizer(models.BPE(vocab, merges, unk_token=_name(r, "unk"), end_of_word_suffix=END))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    inner.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    cut = pre_tokenizers.Split(Regex(CLIP), "removed", invert=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = _pair(vocab, r, "eos", "bos")
    return inner


def _qwen2(vocab: Vocab, merges: Merges, r: ConfigReader) -> Tokenizer:
    inner = Tokenizer(models.BPE(vocab, merges))
    inner.normalizer = normalizers.NFC()
    spaced = r.get("add_prefix_space", bool, False)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), letters])
    inner.decoder = decoders.ByteLevel()
    return inner


def _pair(vocab: Vocab, r: ConfigReader, last: str, first: str) -> processors.RobertaProcessing:
    sep, cls = ((n, vocab[n]) for n in (_name(r, last), _name(r, first)))
    return processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=False)


def _bert(vocab: Vocab, merges: Merges, r: ConfigReader) -> Tokenizer:
    inner = Tokenizer(models.WordPiece(vocab, unk_token=_name(r, "unk")))
    inner.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=r.get("tokenize_chinese_chars", bool, True),
        strip_accents=r.get("strip_accents", bool) if r.has("strip_accents") else None,
        lowercase=r.get("do_lower_case", bool, True),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##")
    return _framed(inner, vocab, _name(r, "cls"), _name(r, "sep"))


def _protein(vocab: Vocab, merges: Merges, r: ConfigReader) -> Tokenizer:
    """Every token is its own word at any position; the text between two tokens is one unknown token."""
    if len(vocab) > LETTERS:
        raise ArtifactError(
            f"vocab.txt has {len(vocab):,} protein tokens, at most {LETTERS:,} are accepted", _MEND
        )
    inner = Tokenizer(models.WordLevel(vocab, unk_token=_name(r, "unk")))
    words = sorted((n for n in vocab if not (n.startswith("<") and n.endswith(">"))), key=len, reverse=True)
    cut = pre_tokenizers.Split(Regex("|".join(map(re.escape, words)) or "(?!)"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), cut])
    return _framed(inner, vocab, _name(r, "cls"), _name(r, "eos"))


def _framed(inner: Tokenizer, vocab: Vocab, first: str, last: str) -> Tokenizer:
    inner.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B {last}",
        special_tokens=[(first, vocab[first]), (last, vocab[last])],
    )
    return inner


_EOT = "<|endoftext|>"
_GPT2 = {f"{k}_token": _EOT for k in ("bos", "eos", "unk")}
_ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"} | {
    f"{k}_token": f"<{k}>" for k in ("unk", "pad", "mask")
}
_CLIP = _GPT2 | {"bos_token": "<|startoftext|>", "pad_token": _EOT}
_QWEN2 = {"eos_token": _EOT, "pad_token": _EOT, "unk_token": _EOT}
_BERT = {f"{k}_token": f"[{k.upper()}]" for k in ("unk", "sep", "pad", "cls", "mask")}
_PROTEIN = {f"{k}_token": f"<{k}>" for k in ("unk", "cls", "pad", "mask", "eos")}
Make = Callable[[Vocab, Merges, ConfigReader], Tokenizer]
READERS: dict[str, tuple[tuple[str, ...], dict[str, str], Make]] = {
    "GPT2Tokenizer": (_PAIR, _GPT2, _gpt2),
    "WhisperTokenizer": (_PAIR, _GPT2, _gpt2),
    "RobertaTokenizer": (_PAIR, _ROBERTA, _roberta),
    "BartTokenizer": (_PAIR, _ROBERTA, _roberta),
    "CLIPTokenizer": (_PAIR, _CLIP, _clip),
    "Qwen2Tokenizer": (_PAIR, _QWEN2, _qwen2),
    "EsmTokenizer": (_LIST, _PROTEIN, _protein),
    **dict.fromkeys(sorted(BERT), (_LIST, _BERT, _bert)),
}
"""By tokenizer class: its files, the default names of its special tokens, and the function that builds it."""
