"""Keeps the named special tokens of a folder that onebase itself does not use, and writes them on export.

Filling masks needs `mask_token`, pairs of texts `sep_token`, image processors `image_token`. Source: transformers
`tokenization_utils_base.py` (`SPECIAL_TOKENS_ATTRIBUTES`, `extra_special_tokens`) and the classes of tokenizers, read for names and defaults.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from onebase.formats.hf.files import CONFIG, read_json
from onebase.modality.text.roles import Roles

OWN = ("bos_token", "eos_token", "pad_token", "unk_token")
"""Roles with their own field."""
STANDARD = (*OWN, "cls_token", "sep_token", "mask_token")
"""Roles that every tokenizer in transformers may have."""
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
"""Default names by tokenizer class, or by `model_type` if no class is named."""


def other_names(folder: Path, tok_config: Tree, names: Tree, specials: Iterable[str]) -> dict[str, str]:
    """Names of special tokens beyond `OWN`, from tokenizer_config.json (`tok_config`), special_tokens_map.json (`names`) or the tokenizer's
    class; names without a token are ignored."""
    kind = tok_config.get("tokenizer_class")
    if kind is None and (folder / CONFIG).is_file():
        kind = read_json(folder / CONFIG).get("model_type")
    named = dict(DEFAULTS.get(str(kind).removesuffix("Fast"), {}))
    for tree in (names, tok_config):
        parts = [tree, *(tree[key] for key in (*LISTS, "model_specific_special_tokens") if key in tree)]
        for part in parts:
            named |= dict(_named(part)) if isinstance(part, Mapping) else {}
    known = set(specials)
    return {key: token for key, token in named.items() if token in known and key not in OWN}


def _named(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        text = value.get("content") if isinstance(value, Mapping) else value
        if key.endswith("_token") and isinstance(text, str):
            yield key, text


def extra_tokens(tok_config: Tree, names: Tree, specials: Iterable[str]) -> tuple[str, ...]:
    """Special tokens that a folder lists without a name."""
    known, found = set(specials), []
    for tree in (tok_config, names):
        for key in LISTS:
            for value in tree[key] if isinstance(tree.get(key), list) else []:
                text = value.get("content") if isinstance(value, Mapping) else value
                found += [text] if isinstance(text, str) and text in known else []
    return tuple(dict.fromkeys(found))


def names_tree(roles: Roles) -> Tree:
    """All named tokens in the form of tokenizer_config.json and special_tokens_map.json."""
    own = {"bos_token": roles.bos, "eos_token": roles.eos, "pad_token": roles.pad, "unk_token": roles.unk}
    tree: Tree = {k: v for k, v in own.items() if v is not None} | dict(roles.others)
    return tree | ({LISTS[1]: list(roles.extra)} if roles.extra else {})
