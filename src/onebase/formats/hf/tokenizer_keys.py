"""Applies keys of tokenizer_config.json to the steps of the tokenizer.json in the same folder.

The file defines how a text becomes ids. In transformers a few keys of the config change that, by tokenizer class: lower-casing and accents
(BERT), the space before a text (byte-level, Llama). Version 5 rebuilds the steps of a class with its keys (and the class's defaults for
missing ones); version 4 kept the file's steps and applied only differing keys of BERT's and byte-level classes. Here the file's steps are
kept and these keys applied. A class without its own steps (`PreTrainedTokenizerFast`) changes nothing there, nor here. Source: transformers
`tokenization_bert.py`, `_gpt2.py`, `_qwen2.py`, `_llama.py`, `_xlm_roberta.py`, `tokenization_auto.py`, read for names and defaults.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onebase.errors import ConfigError
from onebase.formats.hf.files import CONFIG, read_json
from onebase.formats.reader import ConfigReader

Tree = dict[str, Any]
BERT = frozenset(
    f"{name}Tokenizer"
    for name in (
        "Bert",
        "DistilBert",
        "Electra",
        "MobileBert",
        "ConvBert",
        "LayoutLM",
        "SqueezeBert",
        "Lxmert",
    )
)
BYTE_LEVEL = frozenset(
    f"{name}Tokenizer"
    for name in (
        *("GPT2", "Roberta", "Bart", "Longformer", "LED", "Mvp", "Qwen2", "Whisper", "CodeGen", "GPTNeoX"),
        *("Blenderbot", "Deberta"),
    )
)
PREFIXED = frozenset({"LlamaTokenizer", "CodeLlamaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer"})
BY_MODEL = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "esm": "EsmTokenizer",
    "gpt2": "GPT2Tokenizer",
    "whisper": "WhisperTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "clip": "CLIPTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
}
"""The tokenizer class by `model_type`, if no file has it."""
GENERIC = ("mistral", "phi3")
"""Models whose tokenizer.json does more than the class in their folders: only the file counts."""


def kind_of(folder: Path, tok_config: Tree) -> str | None:
    """The class of the folder's tokenizer, without `Fast`: from tokenizer_config.json, from config.json, or by the model; None if it is
    unknown."""
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    kind = tok_config.get("tokenizer_class") or config.get("tokenizer_class")
    if kind is None:
        return BY_MODEL.get(str(config.get("model_type")))
    return str(kind).removesuffix("Fast")


def with_keys(folder: Path, tree: Tree, tok_config: Tree) -> tuple[Tree, list[str]]:
    """The tree of a tokenizer.json with the keys of `tok_config` (tokenizer_config.json) applied, and notices of keys without effect.

    Raises ConfigError for a key that cannot be applied to the file's steps."""
    r = ConfigReader(tok_config, str(folder / "tokenizer_config.json"))
    kind, model = kind_of(folder, tok_config), None
    if (folder / CONFIG).is_file():
        model = read_json(folder / CONFIG).get("model_type")
    if kind in BERT:
        return _bert(tree, r), []
    if kind in BYTE_LEVEL:
        spaced = r.get("add_prefix_space", bool, False)
        step = _changed(tree.get("pre_tokenizer"), "ByteLevel", {"add_prefix_space": spaced})
        return tree | {"pre_tokenizer": step}, []
    if kind in PREFIXED and model not in GENERIC and r.has("add_prefix_space"):
        return _prefixed(tree, r), []
    return tree, list(_idle(tree, r, kind))


def lowered(tree: Tree) -> Tree:
    """The tree of a tokenizer.json with lower-casing as its first step, unless it has a plain lower-casing step: as in sentence-transformers
    with `do_lower_case` in its own config (`base/modules/transformer.py`)."""
    normalizer = tree.get("normalizer")
    inside = normalizer.get("normalizers") if isinstance(normalizer, dict) else None
    steps = inside if isinstance(inside, list) else [] if normalizer is None else [normalizer]
    if any(isinstance(s, dict) and s.get("type") == "Lowercase" for s in steps):
        return tree
    return tree | {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}}


def _bert(tree: Tree, r: ConfigReader) -> Tree:
    flags = {
        "lowercase": r.get("do_lower_case", bool, True),
        "handle_chinese_chars": r.get("tokenize_chinese_chars", bool, True),
        "strip_accents": r.get("strip_accents", bool) if r.has("strip_accents") else None,
    }
    normalizer = tree.get("normalizer")
    if normalizer is None:
        return tree | {"normalizer": {"type": "BertNormalizer", "clean_text": True} | flags}
    kinds = {p.get("type") for p in _parts(normalizer)}
    if "BertNormalizer" in kinds:
        return tree | {"normalizer": _changed(normalizer, "BertNormalizer", flags)}
    # Other steps are kept as in the file (version 4; 5 replaces them with BERT's). They must not contradict a key.
    if r.has("do_lower_case") and flags["lowercase"] != bool({"Lowercase", "NFKCCasefold"} & kinds):
        raise ConfigError(
            f"{r.where}: 'do_lower_case' is {flags['lowercase']}, which contradicts the normalizer of tokenizer.json: "
            + ", ".join(sorted(map(str, kinds))),
            "use files that belong together: write them again where transformers is installed (save_pretrained)",
        )
    return tree


def _prefixed(tree: Tree, r: ConfigReader) -> Tree:
    """A tokenizer converted from SentencePiece, with or without a space before a text."""
    wanted = r.get("add_prefix_space", bool)
    normalizer, splitter = tree.get("normalizer"), tree.get("pre_tokenizer")
    puts = [p for p in (*_parts(normalizer), *_parts(splitter)) if _puts_space(p)]
    if wanted == bool(puts) or any(p.get("type") == "ByteLevel" for p in _parts(splitter)):
        return tree  # byte-level pieces have no space marker: the class does not apply to them
    scheme = "never" if not wanted else "always" if r.get("legacy", bool, False) else "first"
    values = {"prepend_scheme": scheme, "add_prefix_space": wanted}  # the second is the older name
    new = _changed(splitter, "Metaspace", values)
    if wanted and new == splitter:
        raise ConfigError(
            f"{r.where}: 'add_prefix_space' is true, but no step of tokenizer.json can add a space",
            "use files that belong together: write them again where transformers is installed (save_pretrained)",
        )
    decoder = _changed(tree.get("decoder"), "Metaspace", values)
    if isinstance(decoder, dict) and isinstance(decoder.get("decoders"), list):
        strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        kept = [p for p in decoder["decoders"] if p != strip]
        decoder = decoder | {"decoders": [*kept, strip] if wanted else kept}
    return tree | {
        "normalizer": normalizer if wanted else _without(normalizer, "Prepend"),
        "pre_tokenizer": new,
        "decoder": decoder,
    }


def _puts_space(part: Tree) -> bool:
    kind = part.get("type")
    if kind == "Metaspace":
        older = "never" if part.get("add_prefix_space") is False else "always"
        return part.get("prepend_scheme", older) != "never"
    return kind == "Prepend"


def _idle(tree: Tree, r: ConfigReader, kind: str | None) -> Iterator[str]:
    """Notices of keys that seem to change something but do not, because the class has no steps of its own."""
    what = f"{kind or 'a tokenizer without a class'} ignores it, only tokenizer.json counts"
    lowers = any(
        p.get("type") in ("Lowercase", "NFKCCasefold") or p.get("lowercase") is True
        for p in _parts(tree.get("normalizer"))
    )
    if isinstance(value := r.data.get("do_lower_case"), bool) and value != lowers:
        yield f"tokenizer_config.json: do_lower_case is {value}: {what}"
    splits = list(_parts(tree.get("pre_tokenizer")))
    puts = any(_puts_space(p) for p in (*_parts(tree.get("normalizer")), *splits))
    puts = puts or any(p.get("add_prefix_space") is True for p in splits)
    if isinstance(value := r.data.get("add_prefix_space"), bool) and value != puts:
        yield f"tokenizer_config.json: add_prefix_space is {value}: {what}"


_LISTS = ("normalizers", "pretokenizers", "decoders")


def _parts(step: Any) -> Iterator[Tree]:
    """A step and its inner steps."""
    if isinstance(step, dict):
        yield step
        for key in _LISTS:
            inside = step.get(key)
            for part in inside if isinstance(inside, list) else ():
                yield from _parts(part)


def _changed(step: Any, kind: str, values: Tree) -> Any:
    """A step with `values` set in every inner step of this kind."""
    if not isinstance(step, dict):
        return step
    if step.get("type") == kind:
        return step | values
    lists = {k: [_changed(p, kind, values) for p in step[k]] for k in _LISTS if isinstance(step.get(k), list)}
    return step | lists


def _without(step: Any, kind: str) -> Any:
    """A step without its inner steps of this kind; None if nothing is left."""
    if not isinstance(step, dict) or step.get("type") == kind:
        return None
    lists = {
        k: [left for p in step[k] if (left := _without(p, kind)) is not None]
        for k in _LISTS
        if isinstance(step.get(k), list)
    }
    return step | lists
