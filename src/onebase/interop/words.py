"""The words of a Hugging Face folder: tokenizer, the roles of its special tokens, chat template.

`tokenizer.json` says how text becomes ids and what stands around it; `tokenizer_config.json`, `special_tokens_map.json`,
`generation_config.json` and `config.json` say which token is called what; the template is a file of its own or a part of
`tokenizer_config.json`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from onebase.codec.text.codec import TextCodec
from onebase.codec.text.roles import Roles
from onebase.codec.text.template import ChatTemplate
from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import ArtifactError, ConfigError, DataError
from onebase.interop.folder import CONFIG, read_json
from onebase.interop.named_tokens import extra_tokens, other_names
from onebase.interop.vocab_json import read_merges, with_word_ends
from onebase.interop.vocab_txt import read_vocab

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIALS = "special_tokens_map.json"
GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"
OLD_TEMPLATE = "chat_template.json"
"""Where models of images and text had theirs before 2025."""
SLOW = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "tekken.json",
)
"""Tokenizers in other formats: what a folder may have instead."""
MAX_TEMPLATE = 1 << 18
MAX_ID = 2**23
"""A vocabulary of a million tokens is a large one; memory is taken up to the largest id."""
Tree = dict[str, Any]


def read_codec(folder: Path, rows: int) -> TextCodec:
    """Tokenizer and chat template of a folder. rows: how many tokens the model has embeddings for.

    Raises ArtifactError for what is missing, damaged or does not fit.
    """
    said = _optional(folder / TOKENIZER_CONFIG)
    tree, said = _tokenizer(folder, said)
    names = _optional(folder / SPECIALS)
    roles = _roles(folder, tree, said, names)
    tokenizer = Tokenizer(_inner(folder, tree), roles)
    known = tokenizer.specials
    tokenizer = tokenizer.naming(other_names(folder, said, names, known), extra_tokens(said, names, known))
    check_rows(tokenizer, rows, str(folder / TOKENIZER))
    template = _template(folder, said, tokenizer)
    return TextCodec(with_turns(tokenizer, template), template)


def check_rows(tokenizer: Tokenizer, rows: int, where: str) -> None:
    """Refuse a tokenizer with more tokens than rows of embeddings. A padded matrix has more rows than tokens: that is well; so are
    special tokens without a row (of pictures, say) that no text and no role can ever mean. Raises ArtifactError."""
    if tokenizer.vocab_size > MAX_ID:
        raise ArtifactError(
            f"{where} has a token with id {tokenizer.vocab_size - 1:,}", "no vocabulary is so large"
        )
    beyond = set(range(rows, tokenizer.vocab_size))
    unused = {i for name, i in tokenizer.specials.items() if name not in tokenizer.roles.names}
    if beyond - unused:
        raise ArtifactError(
            f"{where} has {tokenizer.vocab_size:,} tokens, the model has embeddings for {rows:,}",
            "take the tokenizer that belongs to the model",
        )


def _tokenizer(folder: Path, said: Tree) -> tuple[Tree, Tree]:
    if (folder / TOKENIZER).is_file():
        return with_word_ends(read_json(folder / TOKENIZER)), said
    if (found := read_vocab(folder, said)) is not None:
        return found
    if (found := read_merges(folder, said)) is not None:
        return with_word_ends(found[0]), found[1]
    other = next((n for n in SLOW if (folder / n).is_file()), None)
    raise ArtifactError(
        f"{folder} has its tokenizer as {other} and not as {TOKENIZER}"
        if other
        else f"{folder} has no {TOKENIZER}",
        "write it once where transformers is installed: "
        "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
    )


def _optional(file: Path) -> Tree:
    return read_json(file) if file.is_file() else {}


def _inner(folder: Path, tree: Tree) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(tree))
    except BaseException as e:  # the library raises bare Exception, or a panic, which is none
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        raise ArtifactError(
            f"{folder / TOKENIZER} is not a tokenizer file: {str(e)[:300]}",
            "take an intact copy of the folder",
        ) from None


def _roles(folder: Path, tree: Tree, said: Tree, names: Tree) -> Roles:
    """The roles; their tokens, and those that the configs add, become special tokens in `tree`."""
    where = str(folder / TOKENIZER)
    vocab = _vocab(tree, where)
    added = tree.setdefault("added_tokens", []) or []
    tree["added_tokens"] = added
    if not isinstance(added, list) or not all(_is_token(t) for t in added):
        raise ArtifactError(f"{where}: 'added_tokens' is no list of tokens", "take an intact copy of it")
    ids = vocab | {str(t["content"]): t.get("id") for t in added}
    by_id = {i: name for name, i in ids.items()}

    def role(key: str) -> str | None:
        value = said[key] if key in said else names.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if value is not None and not isinstance(value, str):
            raise ArtifactError(f"{folder / TOKENIZER_CONFIG}: '{key}' is {value!r}", "it is a token's text")
        return value if value in ids else None  # a role for a token that the vocabulary lacks says nothing

    eos = role("eos_token")
    before, after = _frame(tree.get("post_processor"), where)
    if tree.get("post_processor") is None:  # then the config decides, as it does for whoever writes the file
        before = tuple(n for n in (role("bos_token"),) if n and said.get("add_bos_token") is True)
        after = tuple(n for n in (eos,) if n and said.get("add_eos_token") is True)
    stops = _stops(folder)
    unknown = next((i for i in stops if i not in by_id), None)
    if unknown is not None:
        raise ArtifactError(
            f"{folder}: a generation ends with token {unknown}, which the tokenizer lacks",
            "take the tokenizer that belongs to the model",
        )
    roles = Roles(
        bos=role("bos_token"),
        eos=eos,
        pad=role("pad_token"),
        unk=role("unk_token") or _unknown(tree),
        closing=tuple(dict.fromkeys([*([eos] if eos else []), *(by_id[i] for i in stops)])),
        before=before,
        after=after,
    )
    missing = [n for n in (*before, *after) if n not in ids]
    if missing:
        raise ArtifactError(
            f"{where} frames texts with {missing[0]!r}, which it lacks", "take an intact copy"
        )
    _make_special(added, ids, [*roles.names, *_named(said), *_named(names)])
    return roles


def _is_pair(entry: Any) -> bool:
    """Is this a piece of a Unigram vocabulary: a text, and its score?"""
    return isinstance(entry, list) and bool(entry) and isinstance(entry[0], str)


def _is_token(entry: Any) -> bool:
    """Is this an added token: a text, and an id if it has one?"""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("content"), str)
        and isinstance(entry.get("id"), int | None)
    )


def _vocab(tree: Tree, where: str) -> dict[str, int]:
    model = tree.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):  # Unigram: pairs of a piece and its score
        vocab = {pair[0]: i for i, pair in enumerate(vocab) if _is_pair(pair)}
    if not isinstance(vocab, dict) or not vocab or not all(isinstance(i, int) for i in vocab.values()):
        raise ArtifactError(f"{where} has no vocabulary", "take an intact copy of it")
    return vocab


def _unknown(tree: Tree) -> str | None:
    """The token that stands for what the vocabulary cannot write, as the model itself says."""
    model = tree["model"]
    if model.get("type") == "Unigram" and isinstance(model.get("unk_id"), int):
        return str(model["vocab"][model["unk_id"]][0]) if 0 <= model["unk_id"] < len(model["vocab"]) else None
    name = model.get("unk_token")
    return name if isinstance(name, str) and name in model["vocab"] else None


def _named(tree: Tree) -> list[str]:
    """All special tokens that a config names."""
    keys = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
    values: list[Any] = [tree.get(f"{k}_token") for k in keys]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = tree.get(key)
        values += list(more.values()) if isinstance(more, dict) else more if isinstance(more, list) else []
    found = [v.get("content") if isinstance(v, dict) else v for v in values]
    return [v for v in found if isinstance(v, str)]


def _make_special(added: list[Tree], ids: dict[str, int], names: Sequence[str]) -> None:
    known = {t["content"]: t for t in added}
    for name in dict.fromkeys(n for n in names if n in ids):
        if name in known:
            known[name]["special"] = True
        else:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added.append({"id": ids[name], "content": name, **flags, "special": True})
    added.sort(key=lambda t: t["id"] if isinstance(t.get("id"), int) else 0)


def _frame(post: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the file's own post-processor puts around one text."""
    kind = post.get("type") if isinstance(post, dict) else None
    if kind in (None, "ByteLevel"):
        return (), ()
    try:
        if kind == "Sequence":
            frames = [_frame(p, where) for p in post["processors"]]
            return tuple(n for b, _ in reversed(frames) for n in b), tuple(n for _, a in frames for n in a)
        if kind in ("BertProcessing", "RobertaProcessing"):
            return (post["cls"][0],), (post["sep"][0],)
        if kind == "TemplateProcessing":
            at = next(i for i, part in enumerate(post["single"]) if "Sequence" in part)
            names = [
                [n for p in side for n in post["special_tokens"][p["SpecialToken"]["id"]]["tokens"]]
                for side in (post["single"][:at], post["single"][at + 1 :])
            ]
            return tuple(names[0]), tuple(names[1])
    except (KeyError, IndexError, TypeError, StopIteration, AttributeError, RecursionError):
        raise ArtifactError(f"{where}: its post_processor is damaged", "take an intact copy of it") from None
    raise ArtifactError(
        f"{where} has a post_processor of kind {kind!r}",
        "accepted: TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, Sequence",
    )


def _stops(folder: Path) -> list[int]:
    """Ids that end a generation: what generation_config.json says, else config.json."""
    for name in (GENERATION, CONFIG):
        tree = _optional(folder / name)
        if "eos_token_id" in tree or name == CONFIG:
            value = tree.get("eos_token_id")
            found = value if isinstance(value, list) else [] if value is None else [value]
            if not all(isinstance(i, int) and not isinstance(i, bool) for i in found):
                raise ArtifactError(
                    f"{folder / name}: eos_token_id is {value!r}", "it is an id or a list of ids"
                )
            return found
    return []


def _template(folder: Path, said: Tree, tokenizer: Tokenizer) -> ChatTemplate:
    """The template named `default`; none where the folder has none."""
    file = folder / TEMPLATE
    where = str(file)
    if file.is_file():
        if file.stat().st_size > 4 * MAX_TEMPLATE:
            raise ArtifactError(f"{file} has {file.stat().st_size:,} bytes", "no chat template is so long")
        source: Any = file.read_text(encoding="utf-8", errors="replace")
    elif (folder / OLD_TEMPLATE).is_file():
        where = str(folder / OLD_TEMPLATE)
        source = read_json(folder / OLD_TEMPLATE).get("chat_template")
    else:
        where = f"{folder / TOKENIZER_CONFIG}: chat_template"
        source = said.get("chat_template")
        if isinstance(source, list):
            named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
            source = named.get("default")
    if source is None:
        source = ""
    if not isinstance(source, str):
        raise ArtifactError(f"{where} is {type(source).__name__}", "it is text, or a list of named templates")
    return ChatTemplate(source, tuple(tokenizer.specials), where, tokenizer.roles)


def with_turns(tokenizer: Tokenizer, template: ChatTemplate) -> Tokenizer:
    """The same, with the tokens that close an assistant's turn among those that end a generation: some files forget them. A turn in the
    middle of a conversation may be closed by another token than its end (Phi 3)."""
    asks, says = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    for talk in ([asks, says], [asks, says, asks]):
        try:
            last = [s for s in template.spans(talk) if s.loss][-1:]
        except (ConfigError, DataError):
            continue
        if last and last[0].kind == "special" and last[0].data not in tokenizer.roles.closing:
            tokenizer = tokenizer.closing_with(last[0].data)
    return tokenizer
