"""Reads the text codec of a Hugging Face folder: tokenizer, roles of special tokens, chat template.

`tokenizer.json` defines how text becomes ids, and the tokens around it. `tokenizer_config.json`, `special_tokens_map.json`,
`generation_config.json` and `config.json` define the roles of tokens. The template is a separate file or a part of `tokenizer_config.json`.
"""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers

from onebase.errors import ArtifactError, ConfigError, DataError
from onebase.formats.hf.added_tokens import (
    DECODER,
    ROLES,
    beyond,
    check_ids,
    make_special,
    named,
    text_of,
    unknown_of,
    vocab_of,
    with_added,
)
from onebase.formats.hf.files import CONFIG, read_json
from onebase.formats.hf.named_tokens import extra_tokens, other_names
from onebase.formats.hf.tokenizer_keys import lowered, with_keys
from onebase.formats.hf.vocab_files import read_vocab_files, with_word_ends
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.roles import Roles
from onebase.modality.text.template import ChatTemplate
from onebase.modality.text.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIALS = "special_tokens_map.json"
GENERATION = "generation_config.json"
TEMPLATE = "chat_template.jinja"
OLD_TEMPLATE = "chat_template.json"
"""The template file of models of images and text before 2025."""
SLOW = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "tekken.json",
)
"""Tokenizers in other formats that a folder may have instead."""
MAX_TEMPLATE = 1 << 18
MAX_ID = 2**23
"""A vocabulary of a million tokens is a large one; memory grows with the largest id."""
_WORD = "\ue000"
"""A private-use character, which is not the name of any special token."""
Tree = dict[str, Any]
log = logging.getLogger(__name__)


def read_codec(folder: Path, rows: int, *, lower: bool = False) -> TextCodec:
    """Tokenizer and chat template of a folder. rows: number of embeddings of the model; lower: lower-case a text before the tokenizer's own
    steps. Ignored keys are logged as warnings.

    Raises ArtifactError for missing, damaged or inconsistent files, ConfigError for a key that cannot be applied.
    """
    tok_config, notices = _settled(_optional(folder / TOKENIZER_CONFIG), _optional(folder / SPECIALS))
    named_roles = {key for key in ROLES if text_of(tok_config.get(key))}
    names = _optional(folder / SPECIALS)
    try:
        tree, tok_config, more = _tokenizer(folder, tok_config)
    except RecursionError:
        raise ArtifactError(
            f"{folder / TOKENIZER} is nested too deeply", "take an intact copy of it"
        ) from None
    vocab = vocab_of(tree, str(folder / TOKENIZER))
    tree = lowered(tree) if lower else tree
    notices += [*more, *with_added(folder, tree, tok_config, names, vocab)]
    roles = _roles(folder, tree, tok_config, names, named_roles, vocab)
    added = tree["added_tokens"]
    ids = vocab | {t["content"]: t["id"] for t in added if isinstance(t.get("id"), int)}
    if out := list(beyond(added, ids, rows)):
        notices.append(
            f"{len(out)} added tokens have no embedding and are never generated: {', '.join(out[:8])}"
        )
        if roles.pad in out:
            notices.append(f"pad_token {roles.pad!r} is one of them: this base has no padding token")
            roles = replace(roles, pad=None)
    inner = _library(str(folder / TOKENIZER), tree)
    check_ids(folder, added, inner)
    tokenizer = Tokenizer(inner, roles)
    known = tokenizer.specials
    tokenizer = tokenizer.naming(
        other_names(folder, tok_config, names, known), extra_tokens(tok_config, names, known)
    )
    check_rows(tokenizer, rows, str(folder / TOKENIZER))
    template = _template(folder, tok_config, tokenizer)
    for notice in notices:
        log.warning("%s: %s", folder, notice)
    return TextCodec(with_end_of_turn(tokenizer, template), template, rows)


def _settled(tok_config: Tree, names: Tree) -> tuple[Tree, list[str]]:
    """tokenizer_config.json with the roles of special_tokens_map.json, and notices if the two differ. As in transformers (4 and 5)
    the latter wins, unless the former lists the added tokens itself."""
    roles = {k: v for k, v in names.items() if k in ROLES and v is not None}
    odd = [k for k in sorted(roles.keys() & tok_config.keys()) if text_of(tok_config[k]) != text_of(roles[k])]
    first, last = (roles, tok_config) if DECODER in tok_config else (tok_config, roles)
    whole = tok_config | first | last
    which = TOKENIZER_CONFIG if DECODER in tok_config else SPECIALS
    values = (text_of(tok_config[k]) or "none" for k in odd)
    return whole, [
        f"{k} is {a} in {TOKENIZER_CONFIG} and {text_of(roles[k]) or 'none'} in {SPECIALS}: {which} counts"
        for k, a in zip(odd, values, strict=True)
    ]


def check_rows(tokenizer: Tokenizer, rows: int, where: str) -> None:
    """Refuse a tokenizer with more tokens than embeddings. More rows than tokens (a padded matrix) are accepted; so are special tokens without a
    row (of images, say), if they have no role and come from no text. Raises ArtifactError."""
    if tokenizer.vocab_size > MAX_ID:
        raise ArtifactError(
            f"{where} has a token with id {tokenizer.vocab_size - 1:,}", f"ids up to {MAX_ID:,} are accepted"
        )
    over = set(range(rows, tokenizer.vocab_size))
    unused = {i for name, i in tokenizer.specials.items() if name not in tokenizer.roles.names}
    if over - unused:
        raise ArtifactError(
            f"{where} has {tokenizer.vocab_size:,} tokens, the model has embeddings for {rows:,}",
            "use the tokenizer of this model",
        )


def _tokenizer(folder: Path, tok_config: Tree) -> tuple[Tree, Tree, list[str]]:
    """The tree of the folder's tokenizer.json, or of one built from its other files; `tok_config` with its class's default names; notices."""
    if (folder / TOKENIZER).is_file():
        tree, notices = with_keys(folder, read_json(folder / TOKENIZER), tok_config)
        return with_word_ends(tree), tok_config, notices
    if (built := read_vocab_files(folder, tok_config)) is not None:
        return with_word_ends(built[0]), built[1], []
    other = next((n for n in SLOW if (folder / n).is_file()), None)
    raise ArtifactError(
        f"{folder} has its tokenizer as {other}, not as {TOKENIZER}"
        if other
        else f"{folder} has no {TOKENIZER}",
        "convert it where transformers is installed: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
    )


def _optional(file: Path) -> Tree:
    return read_json(file) if file.is_file() else {}


def _library(where: str, tree: Tree) -> tokenizers.Tokenizer:
    """The `tokenizers` object of a tree. Raises ArtifactError."""
    try:
        return tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0"} | tree))
    except BaseException as e:  # the library raises bare Exception, or a panic, which is not an Exception
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        raise ArtifactError(
            f"{where} is not a tokenizer file: {str(e)[:300]}", "take an intact copy of the folder"
        ) from None


def _roles(
    folder: Path, tree: Tree, tok_config: Tree, names: Tree, named_roles: set[str], vocab: dict[str, int]
) -> Roles:
    """The roles; their tokens, and those in the configs, become special tokens in `tree`. named_roles: the roles set in a file."""
    where = str(folder / TOKENIZER)
    added = tree["added_tokens"]
    ids = vocab | {t["content"]: t.get("id") for t in added}
    by_id = {i: name for name, i in ids.items()}

    def role(key: str) -> str | None:
        name = text_of(tok_config.get(key))
        value = tok_config.get(key)
        if name is None and value not in (None, "", {"content": ""}):
            raise ArtifactError(
                f"{folder / TOKENIZER_CONFIG}: '{key}' is {value!r}", "it must be a token's text"
            )
        if name is not None and name not in ids:
            if key in named_roles:
                raise ArtifactError(
                    f"{folder}: '{key}' is {name!r}, which is not in the vocabulary",
                    f"name one of its tokens in {TOKENIZER_CONFIG} or {SPECIALS}, or add the file that defines this one",
                )
            return None  # only a default of the class
        return name

    single = {key: role(key) for key in ROLES}
    bos, eos = single["bos_token"], single["eos_token"]
    before, after = _frame(tree.get("post_processor"), where)
    if tree.get("post_processor") is None:  # then the config decides, as in transformers
        before = tuple(n for n in (bos,) if n and tok_config.get("add_bos_token") is True)
        after = tuple(n for n in (eos,) if n and tok_config.get("add_eos_token") is True)
    stops = _stops(folder)
    unknown = next((i for i in stops if i not in by_id), None)
    if unknown is not None:
        raise ArtifactError(
            f"{folder}: the stop token {unknown} is not in the tokenizer",
            "use the tokenizer of this model",
        )
    roles = Roles(
        bos=bos,
        eos=eos,
        pad=single["pad_token"],
        unk=single["unk_token"] or unknown_of(tree),
        stop=tuple(dict.fromkeys([*([eos] if eos else []), *(by_id[i] for i in stops)])),
        before=before,
        after=after,
    )
    missing = [n for n in (*before, *after) if n not in ids]
    if missing:
        raise ArtifactError(
            f"{where} puts {missing[0]!r} around texts, but has no such token", "take an intact copy"
        )
    make_special(added, ids, [*roles.names, *named(tok_config), *named(names)])
    return roles


def _frame(post: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tokens that the file's own post-processor puts around a text, found by running it on one word."""
    model = {"type": "WordLevel", "vocab": {_WORD: 0}, "unk_token": _WORD}
    tree = {"added_tokens": [], "model": model, "post_processor": post}
    tokens = _library(where, tree).encode(_WORD).tokens
    if tokens.count(_WORD) != 1:
        raise ArtifactError(
            f"{where}: its post_processor returns a text {tokens.count(_WORD)} times", "take an intact copy"
        )
    at = tokens.index(_WORD)
    return tuple(tokens[:at]), tuple(tokens[at + 1 :])


def _stops(folder: Path) -> list[int]:
    """Stop ids, from generation_config.json or else config.json."""
    for name in (GENERATION, CONFIG):
        tree = _optional(folder / name)
        if "eos_token_id" in tree or name == CONFIG:
            value = tree.get("eos_token_id")
            ids = value if isinstance(value, list) else [] if value is None else [value]
            if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
                raise ArtifactError(
                    f"{folder / name}: eos_token_id is {value!r}", "it must be an id or a list of ids"
                )
            return ids
    return []


def _template(folder: Path, tok_config: Tree, tokenizer: Tokenizer) -> ChatTemplate:
    """The template named `default`; an empty one if the folder has none."""
    file = folder / TEMPLATE
    where = str(file)
    if file.is_file():
        if file.stat().st_size > 4 * MAX_TEMPLATE:
            raise ArtifactError(
                f"{file} has {file.stat().st_size:,} bytes", f"at most {4 * MAX_TEMPLATE:,} are accepted"
            )
        source: Any = file.read_text(encoding="utf-8", errors="replace")
    elif (folder / OLD_TEMPLATE).is_file():
        where = str(folder / OLD_TEMPLATE)
        source = read_json(folder / OLD_TEMPLATE).get("chat_template")
    else:
        where = f"{folder / TOKENIZER_CONFIG}: chat_template"
        source = tok_config.get("chat_template")
        if isinstance(source, list):
            named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
            source = named.get("default")
    if source is None:
        source = ""
    if not isinstance(source, str):
        raise ArtifactError(
            f"{where} is {type(source).__name__}", "it must be text, or a list of named templates"
        )
    return ChatTemplate(source, tuple(tokenizer.specials), where, tokenizer.roles)


def with_end_of_turn(tokenizer: Tokenizer, template: ChatTemplate) -> Tokenizer:
    """The same, with the tokens that end an assistant's turn as stop tokens: some files omit them. A turn inside a conversation may end with
    another token than the last turn (Phi 3)."""
    user, assistant = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    for talk in ([user, assistant], [user, assistant, user]):
        try:
            last = [s for s in template.segments(talk) if s.loss][-1:]
        except (ConfigError, DataError):
            continue
        if last and last[0].kind == "special" and last[0].data not in tokenizer.roles.stop:
            tokenizer = tokenizer.with_stop(last[0].data)
    return tokenizer
