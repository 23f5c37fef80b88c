"""Tokens beside the vocabulary: those of tokenizer_config.json and added_tokens.json, put into the tree of a tokenizer.json.

transformers (4 and 5 alike) adds what `added_tokens_decoder` lists, or in folders without that key what `added_tokens.json` lists, to what
tokenizer.json has itself, and the flags of the former win. It gives a new token the next free id, whatever the file says; here another id
is refused. Source: transformers `tokenization_utils_base.py` (`_from_pretrained`), `tokenization_utils_tokenizers.py`, read for names,
defaults and order.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from onebase.errors import ArtifactError
from onebase.formats.hf.files import read_json

ADDED = "added_tokens.json"
CONFIG = "tokenizer_config.json"
DECODER = "added_tokens_decoder"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
ROLES = tuple(f"{k}_token" for k in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
Tree = dict[str, Any]


def with_added(folder: Path, tree: Tree, said: Tree, names: Tree, vocab: dict[str, int]) -> list[str]:
    """Put the added tokens that the configs list into `tree`, and give those that are there the flags that the configs say. Returns notices.

    said: tokenizer_config.json; names: special_tokens_map.json; vocab: of the model in `tree`. Raises ArtifactError for a token that has
    another id, an id that has another token, and for what is no token.
    """
    where = str(folder / "tokenizer.json")
    added = tree.get("added_tokens") or []
    if not isinstance(added, list) or not all(_is_token(t) for t in added):
        raise ArtifactError(f"{where}: 'added_tokens' is no list of tokens", "take an intact copy of it")
    tree["added_tokens"] = added
    listed, notices = _listed(folder, said, set(named(said)) | set(named(names)))
    known = {t["content"]: t for t in added}
    ids = vocab | {name: t["id"] for name, t in known.items() if isinstance(t.get("id"), int)}
    by_id = {i: name for name, i in ids.items()}
    for i, token in sorted(listed.items()):
        name = token["content"]
        if ids.get(name, i) != i or by_id.get(i, name) != name:
            there = f"id {ids[name]}" if name in ids else f"its id is that of {by_id[i]!r}"
            raise ArtifactError(
                f"{folder}: the added token {name!r} has id {i}, in the vocabulary {there}",
                "take tokenizer files that belong together, or write them anew (save_pretrained in transformers)",
            )
        if name in known:
            # What either file calls special never comes from a text and is never shown.
            flags = token if DECODER in said else {}  # an older list has only names and ids
            known[name] |= flags | {"special": token["special"] or known[name].get("special") is True}
        else:
            known[name] = {"id": i} | token
            added.append(known[name])
        ids[name], by_id[i] = i, name
    for name in _extras(said) + _extras(names):
        if name and name not in ids:  # named, but with no id: the next one is its
            ids[name] = 1 + max(ids.values())
            added.append({"id": ids[name]} | _plain(name, special=True))
            known[name] = added[-1]
    return notices


def _is_pair(entry: Any) -> bool:
    """Is this a piece of a Unigram vocabulary: a text, and its score?"""
    return isinstance(entry, list) and bool(entry) and isinstance(entry[0], str)


def vocab_of(tree: Tree, where: str) -> dict[str, int]:
    """The tokens of the model in a tokenizer.json. Raises ArtifactError where there are none."""
    model = tree.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):  # Unigram: pairs of a piece and its score
        vocab = {pair[0]: i for i, pair in enumerate(vocab) if _is_pair(pair)}
    if not isinstance(vocab, dict) or not vocab or not all(isinstance(i, int) for i in vocab.values()):
        raise ArtifactError(f"{where} has no vocabulary", "take an intact copy of it")
    return vocab


def unknown_of(tree: Tree) -> str | None:
    """The token that stands for what the vocabulary cannot write, as the model itself says."""
    model = tree["model"]
    if model.get("type") == "Unigram" and isinstance(model.get("unk_id"), int):
        return str(model["vocab"][model["unk_id"]][0]) if 0 <= model["unk_id"] < len(model["vocab"]) else None
    name = model.get("unk_token")
    return name if isinstance(name, str) and name in model["vocab"] else None


def make_special(added: list[Tree], ids: dict[str, int], names: Sequence[str]) -> None:
    """Make tokens special, by name, in `added`, the list of a tokenizer.json; names that are in no vocabulary are passed over."""
    known = {t["content"]: t for t in added}
    for name in dict.fromkeys(n for n in names if n in ids):
        if name in known:
            known[name]["special"] = True
        else:
            added.append({"id": ids[name]} | _plain(name, special=True))
    added.sort(key=lambda t: t["id"] if isinstance(t.get("id"), int) else 0)


def check_ids(folder: Path, added: list[Tree], inner: tokenizers.Tokenizer) -> None:
    """The library counts on from its vocabulary, whatever ids its file says: refuse a file in which that gives others. Raises ArtifactError."""
    for token in added:
        name, wanted = token["content"], token.get("id")
        found = inner.token_to_id(name)
        if isinstance(wanted, int) and found != wanted:
            raise ArtifactError(
                f"{folder}: the added token {name!r} has id {wanted}, not {found}, which is the next one",
                "write tokenizer.json where transformers is installed (save_pretrained)",
            )


def named(tree: Tree) -> list[str]:
    """All special tokens that a config names."""
    return [*(n for k in ROLES if (n := text_of(tree.get(k)))), *_extras(tree)]


def text_of(value: Any) -> str | None:
    """The text of a token that a config gives as text or as a map; None for what is neither, and for a text without letters (LLaMA 1)."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) and value else None


def _extras(tree: Tree) -> list[str]:
    """Special tokens without a role that every model has, in the order in which transformers adds them: under keys like `image_token`, by
    names of the model's own, in a list."""
    values = [v for k, v in tree.items() if k.endswith("_token") and k not in ROLES]
    more = [tree.get(k) for k in ("extra_special_tokens", "additional_special_tokens")]
    values += [v for part in more if isinstance(part, dict) for v in part.values()]
    values += [v for part in more if isinstance(part, list) for v in part]
    return [name for v in values if (name := text_of(v))]


def _listed(folder: Path, said: Tree, special: set[str]) -> tuple[dict[int, Tree], list[str]]:
    """Added tokens by id, as the one file that counts lists them, and what is to be told."""
    found: dict[int, Tree] = {}
    beside = folder / ADDED
    if DECODER in said:
        where = folder / CONFIG
        if not isinstance(said[DECODER], dict):
            raise ArtifactError(f"{where}: {DECODER} is no map", "take an intact copy of it")
        for key, token in said[DECODER].items():
            if not _is_token(token):
                raise ArtifactError(f"{where}: {DECODER} has {token!r}", "take an intact copy of it")
            i = _id(int(key) if str(key).isdecimal() else key, where)
            plain = _plain(token["content"], special=token.get("special") is True)
            found[i] = plain | {k: token[k] is True for k in FLAGS if k in token}
        more = read_json(beside).keys() - {t["content"] for t in found.values()} if beside.is_file() else ()
        # As in transformers, where that key makes an older file count for nothing.
        return found, [f"{ADDED}: {n} is not among {DECODER} of {CONFIG}, which counts" for n in sorted(more)]
    for name, i in read_json(beside).items() if beside.is_file() else ():
        if (number := _id(i, beside)) in found:
            raise ArtifactError(f"{beside} has the id {i} twice", "take an intact copy of it")
        found[number] = _plain(name, special=name in special)
    return found, []


def _plain(name: str, *, special: bool) -> Tree:
    """A token with the flags that transformers gives one of which no more is known."""
    return dict.fromkeys(FLAGS, False) | {"content": name, "normalized": not special, "special": special}


def _id(value: Any, where: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ArtifactError(f"{where} has the id {value!r}", "take an intact copy of it")
    return value


def _is_token(entry: Any) -> bool:
    """Is this an added token: a text, and an id if it has one?"""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("content"), str)
        and isinstance(entry.get("id"), int | None)
    )


def beyond(added: list[Tree], ids: dict[str, int], rows: int) -> Iterator[str]:
    """Added tokens without a row of embeddings. They become special, so that no text ever means them."""
    for token in added:
        if ids.get(token["content"], 0) >= rows:
            token["special"] = True
            yield token["content"]
