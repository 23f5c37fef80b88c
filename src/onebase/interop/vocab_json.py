"""Byte-level BPE in two files, `vocab.json` and `merges.txt`: GPT-2's, RoBERTa's, CLIP's, Whisper's, Qwen 2's. As a tokenizer.json.

The files do not say how a text is split before merging; `tokenizer_class` does, or in older folders the kind of the model. Source:
transformers `tokenization_gpt2.py`, `_roberta.py`, `_clip.py`, `_whisper.py`, `_qwen2.py`, read for steps, names and defaults.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from onebase.errors import ArtifactError
from onebase.interop.folder import MAX_JSON, read_json
from onebase.interop.reader import Reader
from onebase.interop.tokenizer_keys import kind_of

VOCAB, MERGES = "vocab.json", "merges.txt"
END = "</w>"
"""What CLIP's tokens have at the end of a word."""
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
Tree = dict[str, Any]
_END_OF_TEXT = "<|endoftext|>"
_GPT2 = {f"{k}_token": _END_OF_TEXT for k in ("bos", "eos", "unk")}
_ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"} | {
    f"{k}_token": f"<{k}>" for k in ("unk", "pad", "mask")
}
_CLIP = _GPT2 | {"bos_token": "<|startoftext|>", "pad_token": _END_OF_TEXT}
_QWEN2 = {"eos_token": _END_OF_TEXT, "pad_token": _END_OF_TEXT, "unk_token": _END_OF_TEXT}


def read_merges(folder: Path, said: Tree) -> tuple[Tree, Tree] | None:
    """The tree of a tokenizer.json, and `said` (tokenizer_config.json) with the names that are its defaults; None where the folder
    has no such pair, or one for another tokenizer. Raises ArtifactError for damaged files."""
    if not ((folder / VOCAB).is_file() and (folder / MERGES).is_file()):
        return None
    found = KINDS.get(str(kind_of(folder, said)))
    if found is None:
        return None
    names, make = found
    said = names | {k: v for k, v in said.items() if v is not None}
    r = Reader(said, str(folder / "tokenizer_config.json"))
    vocab = _vocab(folder / VOCAB)
    try:
        inner = make(vocab, _merges(folder / MERGES), r)
    except KeyError as e:
        raise ArtifactError(f"{folder / VOCAB} lacks the token {e}", "take an intact copy of it") from None
    except Exception as e:  # the library raises bare Exception: a merge of what is no token, say
        if type(e) is not Exception:
            raise
        raise ArtifactError(
            f"{folder / MERGES} does not go with {VOCAB}: {e}", "take intact copies"
        ) from None
    tree: Tree = json.loads(inner.to_str())
    return tree, said


def with_word_ends(tree: Tree) -> Tree:
    """A tokenizer.json whose decoder writes what marks the end of a word as a space: CLIP's own file leaves it to its caller."""
    model, decoder = tree.get("model"), tree.get("decoder")
    end = model.get("end_of_word_suffix") if isinstance(model, dict) else None
    if not end or not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        return tree
    # The last first. (The library's Strip would do it too, but ends the interpreter on an empty text.)
    last = {"type": "Replace", "pattern": {"Regex": re.escape(str(end)) + r"\z"}, "content": ""}
    space = {"type": "Replace", "pattern": {"String": end}, "content": " "}
    return tree | {"decoder": {"type": "Sequence", "decoders": [decoder, last, space]}}


def _vocab(file: Path) -> dict[str, int]:
    vocab = read_json(file)
    ids = [i for i in vocab.values() if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**31]
    if not vocab or len(ids) != len(vocab) or len(set(ids)) != len(ids):
        raise ArtifactError(
            f"{file} is no list of tokens, each with an id of its own", "take an intact copy of it"
        )
    return vocab


def _merges(file: Path) -> list[tuple[str, str]]:
    if file.stat().st_size > MAX_JSON:
        raise ArtifactError(f"{file} has {file.stat().st_size:,} bytes", f"at most {MAX_JSON:,} are read")
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as e:
        raise ArtifactError(f"{file} is no text: {e}", "take an intact copy of it") from None
    out = []
    for no, line in enumerate(lines, 1):
        if line.startswith("#version") or not line.strip():
            continue
        first, _, second = line.rstrip("\r").partition(" ")
        if not first or not second or " " in second:
            raise ArtifactError(
                f"{file}, line {no} is no pair of tokens: {line[:60]!r}", "take an intact copy of it"
            )
        out.append((first, second))
    return out


def _name(r: Reader, key: str) -> str:
    value = r.data[f"{key}_token"]
    return str(value["content"] if isinstance(value, dict) else value)


def _gpt2(vocab: dict[str, int], merges: list[tuple[str, str]], r: Reader) -> Tokenizer:
    inner = Tokenizer(models.BPE(vocab, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=r.get("add_prefix_space", bool, False))
    inner.decoder = decoders.ByteLevel()
    return inner


def _roberta(vocab: dict[str, int], merges: list[tuple[str, str]], r: Reader) -> Tokenizer:
    inner = _gpt2(vocab, merges, r)
    inner.post_processor = _pair(vocab, r, "sep", "cls")
    return inner


def _clip(vocab: dict[str, int], merges: list[tuple[str, str]], r: Reader) -> Tokenizer:
    inner = Tokenizer(models.BPE(vocab, merges, unk_token=_name(r, "unk"), end_of_word_suffix=END))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    inner.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    cut = pre_tokenizers.Split(Regex(CLIP), "removed", invert=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = _pair(vocab, r, "eos", "bos")
    return inner


def _qwen2(vocab: dict[str, int], merges: list[tuple[str, str]], r: Reader) -> Tokenizer:
    inner = Tokenizer(models.BPE(vocab, merges))
    inner.normalizer = normalizers.NFC()
    spaced = r.get("add_prefix_space", bool, False)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), letters])
    inner.decoder = decoders.ByteLevel()
    return inner


def _pair(vocab: dict[str, int], r: Reader, last: str, first: str) -> processors.RobertaProcessing:
    names = [_name(r, last), _name(r, first)]
    sep, cls = ((n, vocab[n]) for n in names)
    return processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=False)


Make = Callable[[dict[str, int], list[tuple[str, str]], Reader], Tokenizer]
KINDS: dict[str, tuple[dict[str, str], Make]] = {
    "GPT2Tokenizer": (_GPT2, _gpt2),
    "WhisperTokenizer": (_GPT2, _gpt2),
    "RobertaTokenizer": (_ROBERTA, _roberta),
    "BartTokenizer": (_ROBERTA, _roberta),
    "CLIPTokenizer": (_CLIP, _clip),
    "Qwen2Tokenizer": (_QWEN2, _qwen2),
}
