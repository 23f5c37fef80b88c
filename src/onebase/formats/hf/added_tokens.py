"""Merges the added tokens of tokenizer_config.json and added_tokens.json into the tree of a tokenizer.json.

transformers (4 and 5) adds the tokens of `added_tokens_decoder`, or in folders without that key those of `added_tokens.json`, to the tokens in
tokenizer.json; the flags of the former win. It gives a new token the next free id, whatever id the file has; here a different id is refused.
Source: transformers `tokenization_utils_base.py` (`_from_pretrained`), `tokenization_utils_tokenizers.py`, read for names, defaults and order.
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


def with_added(folder: Path, tree: Tree, tok_config: Tree, names: Tree, vocab: dict[str, int]) -> list[str]:
    """Put the added tokens of the configs into `tree`, and their flags on tokens that are there already. Returns notices.

    tok_config: tokenizer_config.json; names: special_tokens_map.json; vocab: of the model in `tree`. Raises ArtifactError for a token with a
    different id, an id with a different token, and invalid tokens.
    """
    where = str(folder / "tokenizer.json")
    added = tree.get("added_tokens") or []
    if not isinstance(added, list) or not all(_is_token(t) for t in added):
        raise ArtifactError(f"{where}: 'added_tokens' is not a list of tokens", "take an intact copy of it")
    tree["added_tokens"] = added
    listed, notices = _listed(folder, tok_config, set(named(tok_config)) | set(named(names)))
    known = {t["content"]: t for t in added}
    ids = vocab | {name: t["id"] for name, t in known.items() if isinstance(t.get("id"), int)}
    by_id = {i: name for name, i in ids.items()}
    for i, token in sorted(listed.items()):
        name = token["content"]
        if ids.get(name, i) != i or by_id.get(i, name) != name:
            actual = f"it has id {ids[name]}" if name in ids else f"this id is {by_id[i]!r}"
            raise ArtifactError(
                f"{folder}: the added token {name!r} has id {i}, in the vocabulary {actual}",
                "use tokenizer files that belong together, or write them again (save_pretrained in transformers)",
            )
        if name in known:
            # A token that is special in either file never comes from a text and is never shown.
            flags = token if DECODER in tok_config else {}  # an older list has only names and ids
            known[name] |= flags | {"special": token["special"] or known[name].get("special") is True}
        else:
            known[name] = {"id": i} | token
            added.append(known[name])
        ids[name], by_id[i] = i, name
    for name in _extras(tok_config) + _extras(names):
        if name and name not in ids:  # named without an id: it gets the next one
            ids[name] = 1 + max(ids.values())
            added.append({"id": ids[name]} | _plain(name, special=True))
            known[name] = added[-1]
    return notices


def _is_pair(entry: Any) -> bool:
    """Is this an entry of a Unigram vocabulary: a piece and its score?"""
    return isinstance(entry, list) and bool(entry) and isinstance(entry[0], str)


def vocab_of(tree: Tree, where: str) -> dict[str, int]:
    """The vocabulary of the model in a tokenizer.json. Raises ArtifactError if there is none."""
    model = tree.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):  # Unigram: pairs of a piece and its score
        vocab = {pair[0]: i for i, pair in enumerate(vocab) if _is_pair(pair)}
    if not isinstance(vocab, dict) or not vocab or not all(isinstance(i, int) for i in vocab.values()):
        raise ArtifactError(f"{where} has no vocabulary", "take an intact copy of it")
    return vocab


def unknown_of(tree: Tree) -> str | None:
    """The model's own unknown token."""
    model = tree["model"]
    if model.get("type") == "Unigram" and isinstance(model.get("unk_id"), int):
        return str(model["vocab"][model["unk_id"]][0]) if 0 <= model["unk_id"] < len(model["vocab"]) else None
    name = model.get("unk_token")
    return name if isinstance(name, str) and name in model["vocab"] else None


def make_special(added: list[Tree], ids: dict[str, int], names: Sequence[str]) -> None:
    """Make tokens special, by name, in `added`, the list of a tokenizer.json; names that are not in the vocabulary are ignored."""
    known = {t["content"]: t for t in added}
    for name in dict.fromkeys(n for n in names if n in ids):
        if name in known:
            known[name]["special"] = True
        else:
            added.append({"id": ids[name]} | _plain(name, special=True))
    added.sort(key=lambda t: t["id"] if isinstance(t.get("id"), int) else 0)


def check_ids(folder: Path, added: list[Tree], inner: tokenizers.Tokenizer) -> None:
    """The library numbers added tokens after its vocabulary and ignores the ids in the file: refuse a file with different ids. Raises ArtifactError."""
    for token in added:
        name, wanted = token["content"], token.get("id")
        actual = inner.token_to_id(name)
        if isinstance(wanted, int) and actual != wanted:
            raise ArtifactError(
                f"{folder}: the added token {name!r} has id {wanted}, not {actual}, the next free one",
                "write tokenizer.json where transformers is installed (save_pretrained)",
            )


def named(tree: Tree) -> list[str]:
    """All special tokens in a config."""
    return [*(n for k in ROLES if (n := text_of(tree.get(k)))), *_extras(tree)]


def text_of(value: Any) -> str | None:
    """The text of a token given as a string or as a map; None for other values and for an empty string (LLaMA 1)."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) and value else None


def _extras(tree: Tree) -> list[str]:
    """Special tokens beyond the standard roles, in the order in which transformers adds them: under keys like `image_token`, in maps, in lists."""
    values = [v for k, v in tree.items() if k.endswith("_token") and k not in ROLES]
    more = [tree.get(k) for k in ("extra_special_tokens", "additional_special_tokens")]
    values += [v for part in more if isinstance(part, dict) for v in part.values()]
    values += [v for part in more if isinstance(part, list) for v in part]
    return [name for v in values if (name := text_of(v))]


def _listed(folder: Path, tok_config: Tree, special: set[str]) -> tuple[dict[int, Tree], list[str]]:
    """Added tokens by id, from the one file that counts, and notices."""
    listed: dict[int, Tree] = {}
    added_file = folder / ADDED
    if DECODER in tok_config:
        where = folder / CONFIG
        if not isinstance(tok_config[DECODER], dict):
            raise ArtifactError(f"{where}: {DECODER} is not a map", "take an intact copy of it")
        for key, token in tok_config[DECODER].items():
            if not _is_token(token):
                raise ArtifactError(f"{where}: {DECODER} has {token!r}", "take an intact copy of it")
            i = _id(int(key) if str(key).isdecimal() else key, where)
            plain = _plain(token["content"], special=token.get("special") is True)
            listed[i] = plain | {k: token[k] is True for k in FLAGS if k in token}
        known = {t["content"] for t in listed.values()}
        more = read_json(added_file).keys() - known if added_file.is_file() else ()
        # As in transformers, where this key overrides the older file.
        return listed, [f"{ADDED}: {n} is not in {DECODER} of {CONFIG}, which counts" for n in sorted(more)]
    for name, i in read_json(added_file).items() if added_file.is_file() else ():
        if (number := _id(i, added_file)) in listed:
            raise ArtifactError(f"{added_file} has the id {i} twice", "take an intact copy of it")
        listed[number] = _plain(name, special=name in special)
    return listed, []


def _plain(name: str, *, special: bool) -> Tree:
    """A token with the default flags of transformers."""
    return dict.fromkeys(FLAGS, False) | {"content": name, "normalized": not special, "special": special}


def _id(value: Any, where: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ArtifactError(f"{where} has the id {value!r}", "take an intact copy of it")
    return value


def _is_token(entry: Any) -> bool:
    """Is this an added token: a text, and optionally an id?"""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("content"), str)
        and isinstance(entry.get("id"), int | None)
    )


def beyond(added: list[Tree], ids: dict[str, int], rows: int) -> Iterator[str]:
    """Added tokens without an embedding. They become special, so that no text is encoded as one."""
    for token in added:
        if ids.get(token["content"], 0) >= rows:
            token["special"] = True
            yield token["content"]
