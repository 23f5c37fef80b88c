"""Special tokens that nothing here reads or writes with, by the names that others call them: kept from a folder, and written into one.

Filling masks needs `mask_token`, pairs of texts `sep_token`, processors of images `image_token`. Source: transformers
`tokenization_utils_base.py` (`SPECIAL_TOKENS_ATTRIBUTES`, `extra_special_tokens`) and the classes of tokenizers, read for names and defaults.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from onebase.codec.text.roles import Roles
from onebase.formats.hf.files import CONFIG, read_json

OWN = ("bos_token", "eos_token", "pad_token", "unk_token")
"""Roles that have a field of their own."""
STANDARD = (*OWN, "cls_token", "sep_token", "mask_token")
"""Those that every tokenizer there may have."""
LISTS = ("extra_special_tokens", "additional_special_tokens")
SPECIALS = "special_tokens_map.json"
Tree = dict[str, Any]
_BERT = {f"{k}_token": f"[{k.upper()}]" for k in ("cls", "sep", "mask")}
_ROBERTA = {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
_ESM = {"cls_token": "<cls>", "mask_token": "<mask>"}
DEFAULTS = {
    **dict.fromkeys(
        ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"), _BERT
    ),
    **dict.fromkeys(("bert", "distilbert"), _BERT),
    **dict.fromkeys(
        ("RobertaTokenizer", "BartTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer"), _ROBERTA
    ),
    **dict.fromkeys(("roberta", "xlm-roberta"), _ROBERTA),
    **dict.fromkeys(("EsmTokenizer", "esm"), _ESM),
}
"""What a class calls so where no file does, by the class, or where none is named by the kind of the model."""


def other_names(folder: Path, said: Tree, names: Tree, specials: Iterable[str]) -> dict[str, str]:
    """Names of special tokens beyond `OWN`, as tokenizer_config.json (`said`), special_tokens_map.json (`names`) or the tokenizer's class
    say; one without a token says nothing."""
    kind = said.get("tokenizer_class")
    if kind is None and (folder / CONFIG).is_file():
        kind = read_json(folder / CONFIG).get("model_type")
    found = dict(DEFAULTS.get(str(kind).removesuffix("Fast"), {}))
    for tree in (names, said):
        parts = [tree, *(tree[key] for key in (*LISTS, "model_specific_special_tokens") if key in tree)]
        for part in parts:
            found |= dict(_named(part)) if isinstance(part, Mapping) else {}
    known = set(specials)
    return {key: token for key, token in found.items() if token in known and key not in OWN}


def _named(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        text = value.get("content") if isinstance(value, Mapping) else value
        if key.endswith("_token") and isinstance(text, str):
            yield key, text


def extra_tokens(said: Tree, names: Tree, specials: Iterable[str]) -> tuple[str, ...]:
    """Special tokens that a folder lists without a name."""
    known, found = set(specials), []
    for tree in (said, names):
        for key in LISTS:
            for value in tree[key] if isinstance(tree.get(key), list) else []:
                text = value.get("content") if isinstance(value, Mapping) else value
                found += [text] if isinstance(text, str) and text in known else []
    return tuple(dict.fromkeys(found))


def names_tree(roles: Roles) -> Tree:
    """All of them as tokenizer_config.json and special_tokens_map.json have them."""
    own = {"bos_token": roles.bos, "eos_token": roles.eos, "pad_token": roles.pad, "unk_token": roles.unk}
    tree: Tree = {k: v for k, v in own.items() if v is not None} | dict(roles.others)
    return tree | ({LISTS[1]: list(roles.extra)} if roles.extra else {})
