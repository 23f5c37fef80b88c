"""Builds a smaller base to distil into: some layers of a base, and optionally only the part of the vocabulary that some texts use.

L layers, V vocabulary, D width.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tokenizers
import torch

from onebase.artifact.record import Origin, Record, machine_facts, version_facts
from onebase.base.folder import LoadedBase, base_tensors, put_tensors
from onebase.base.model import BaseModel
from onebase.data.labelled import Data
from onebase.derive.quantising import weight_bytes
from onebase.errors import ConfigError, UserError
from onebase.methods import head
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, Attached, adapter_tensors, bound_to
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.tokenizer import Tokenizer
from onebase.tasks.continued import text_rows
from onebase.tasks.job import rows_hash
from onebase.tasks.results import Adapter

_BLOCK = re.compile(r"trunks\.text\.blocks\.(\d+)\.(.*)")
_ROWS = re.compile(r"codecs\.text\.(stem\.weight|head\.weight|head\.bias)")


def spread(depth: int, layers: int) -> tuple[int, ...]:
    """The layers (of `depth`) that a student of `layers` keeps: evenly spread, with the first and the last (of one layer: the first)."""
    if layers == 1:
        return (0,)
    return tuple(round(i * (depth - 1) / (layers - 1)) for i in range(layers))


def student(
    base: LoadedBase, layers: int, *, tokens: int | None = None, data: Data | None = None, name: str = ""
) -> LoadedBase:
    """A new base with `layers` of the base's layers, its embeddings and norms. Its record names the base as parent.

    tokens: keep at most this many tokens of the vocabulary, those that `data` (rows with `text`, or files) uses most; WordPiece only.
    The student needs training before it is useful (task distil). Raises UserError for invalid numbers, and for bases that are quantized or
    not text-only.
    """
    cfg = base.model.cfg
    if set(cfg.trunks) != {"text"} or cfg.links or base.text_codec is None:
        raise UserError("this base is not text-only", "students are built from text-only bases")
    if cfg.storage is not None:
        raise UserError(
            f"this base is quantized to {cfg.storage.bits} bits",
            "build the student from the base that it was quantized from",
        )
    trunk, began = cfg.trunks["text"], time.perf_counter()
    if not 1 <= layers <= len(trunk.blocks):
        raise UserError(f"{layers} layers of {len(trunk.blocks)}", f"give 1 to {len(trunk.blocks)}")
    if (tokens is None) != (data is None):
        raise UserError(
            "a smaller vocabulary needs a number of tokens and texts to choose them by",
            "give both tokens and data, or neither",
        )
    kept = spread(len(trunk.blocks), layers)
    own = base_tensors(base.model)
    codec, text_codec, rows = cfg.text, base.text_codec, None
    record = Record("base")
    if tokens is not None and data is not None:
        texts = text_rows(data)
        tokenizer, ids = trimmed(text_codec.tokenizer, [str(r["text"]) for r in texts], tokens)
        rows, text_codec = torch.from_numpy(ids), TextCodec(tokenizer, text_codec.template)
        codec = replace(codec, vocab_size=len(ids))
        record.add("student.tokens", len(ids), "counted")
        record.add("data.fingerprint", rows_hash(texts), "hashed: what the tokens were chosen by")
    tensors = {k: t.clone() for k, t in _kept(own, kept, rows).items()}
    with torch.device("meta"):
        model = BaseModel(
            replace(
                cfg,
                trunks={"text": replace(trunk, blocks=tuple(trunk.blocks[i] for i in kept))},
                codecs={"text": codec},
            )
        )
    put_tensors(model, tensors, Path("student"))
    model.compute_dtype = base.model.compute_dtype
    out = LoadedBase(model.eval(), text_codec, record, embedding=base.embedding)
    record.add("name", f"{name or 'base'}-student", f"{Origin.COMPUTED} from the base's name")
    record.add_parent("base", base.fingerprint, name)
    record.inherit(base.record, name)
    record.add("student.layers", list(kept), f"{Origin.CHOSEN}: spread evenly over the base's")
    for label, each in (("", out), ("_before", base)):
        size = sum(t.numel() for t in base_tensors(each.model).values())
        record.add(f"student.parameters{label}", size, "counted")
        record.add(f"student.bytes{label}", weight_bytes(each), "counted")
    record.add("data", None, f"{Origin.PARENT}: the base it is made of")
    record.add("seconds", round(time.perf_counter() - began, 3), "measured")
    record.add("machine", machine_facts(), Origin.SYSTEM)
    record.add("versions", version_facts(), Origin.PACKAGES)
    return out


def _kept(
    own: dict[str, torch.Tensor], layers: Sequence[int], rows: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """The tensors of the layers that stay, renumbered, and of the rows of the vocabulary that stay."""
    new = {old: i for i, old in enumerate(layers)}
    out = {}
    for name, t in own.items():
        if match := _BLOCK.fullmatch(name):
            if (old := int(match[1])) in new:
                out[f"trunks.text.blocks.{new[old]}.{match[2]}"] = t
        elif name == "trunks.text.lambdas":
            out[name] = t[list(layers)]
        else:
            out[name] = t[rows.to(t.device)] if rows is not None and _ROWS.fullmatch(name) else t
    return out


def head_of(attached: Attached, merged: LoadedBase) -> Adapter:
    """The head of a `full` or `lora` adapter, as an adapter of the merged base: merging does not include it. Ship both together.
    Raises UserError for an adapter without a head."""
    if attached.config.head is None:
        raise UserError("the adapter has no head", "merge it: the merged base is complete")
    cfg = AdapterConfig(
        method=head.METHOD.name, task=attached.config.task, base=bound_to(merged), head=attached.config.head
    )
    own = adapter_tensors(attached.base, attached.name)
    record = Record("adapter")
    record.add_parent("base", merged.fingerprint)
    record.add_parent("adapter", attached.fingerprint, attached.name)
    for key, value, origin in (
        ("task", cfg.task, f"{Origin.PARENT}: the adapter"),
        ("method", cfg.method, f"{Origin.COMPUTED}: the rest is merged"),
        ("data", None, f"{Origin.PARENT}: the adapter it is a part of"),
        ("versions", version_facts(), Origin.PACKAGES),
    ):
        record.add(key, value, origin)
    return Adapter(AdapterParts(cfg, {k: t for k, t in own.items() if head.owns(k)}, record))


def trimmed(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> tuple[Tokenizer, np.ndarray]:
    """A WordPiece tokenizer of at most `size` tokens, and their old ids, int64 [size], in order.

    All special tokens stay, and all pieces of one ASCII letter, digit or mark; then the tokens that the texts use most. A word with a
    character that is missing becomes the unknown token. Longest match first makes any choice of pieces safe: if all tokens of a word stay, its
    tokens are the same as before; otherwise they are shorter pieces. Raises ConfigError for another kind of tokenizer, and for a size too
    small for the tokens that must stay.
    """
    tree = json.loads(tokenizer.as_json)
    model = tree["model"]
    if model["type"] != "WordPiece":
        raise ConfigError(
            f"the vocabulary is of kind {model['type']}, whose tokens are built from each other",
            "keep the whole vocabulary: only WordPiece can be trimmed",
        )
    prefix = model["continuing_subword_prefix"]
    required = {t["id"] for t in tree["added_tokens"]} | {
        i for t, i in model["vocab"].items() if len(t.removeprefix(prefix)) == 1 and t.isascii()
    }
    if size < len(required):
        raise ConfigError(
            f"a vocabulary of {size} tokens is too small",
            f"give at least {len(required)}: that many must stay",
        )
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for ids in tokenizer.encode_batch(list(texts)):
        np.add.at(counts, ids, 1)
    counts[sorted(required)] = 0
    used = np.argsort(-counts, kind="stable")[: min(size - len(required), int((counts > 0).sum()))]
    kept = np.array(sorted(required | set(used.tolist())))
    new = {int(old): i for i, old in enumerate(kept)}
    model["vocab"] = {t: new[i] for t, i in model["vocab"].items() if i in new}
    for token in tree["added_tokens"]:
        token["id"] = new[token["id"]]
    for special in ((tree.get("post_processor") or {}).get("special_tokens") or {}).values():
        special["ids"] = [new[i] for i in special["ids"]]
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(tree)), tokenizer.roles), kept
