"""Writes a base as a GGUF file for llama.cpp: F32, F16, BF16, Q8_0 or Q4_1, byte-reproducible, one tensor at a time.

Format: ggml docs/gguf.md, version 3. Matrices get the requested kind and vectors F32. In a Q4_1 file embedding and output are Q8_0. Rows
that are not divisible into blocks are F16. llama.cpp's own tools do the same.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import tokenizers
import torch
from torch import Tensor

from onebase.artifact.disk import disk_errors, fsync
from onebase.base.model import BaseModel
from onebase.errors import ConfigError
from onebase.formats.family import Family, written
from onebase.formats.gguf.families import stored
from onebase.formats.gguf.header import TENSOR_TYPES, TensorType
from onebase.formats.gguf.keys import pooling_tree
from onebase.formats.gguf.rotary import TABLES
from onebase.formats.gguf.source import library
from onebase.formats.gguf.vocab_out import prove, vocabulary
from onebase.formats.rules import Rule, Shape, their_shapes
from onebase.formats.weight_loading import own_shapes
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.modality.text.roles import Roles
from onebase.modality.text.template import ChatTemplate

WeightKind = Literal["F32", "F16", "BF16", "Q8_0", "Q4_1"]
FILE_TYPES: dict[WeightKind, int] = {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_1": 3}
"""`general.file_type` (llama.h, enum llama_ftype)."""
ALIGNMENT = 32
_CODES = {k.name: code for code, k in TENSOR_TYPES.items()}
_LARGEST_F16 = 65504.0


def save_gguf(
    path: str | Path,
    model: BaseModel,
    family: Family,
    inner: tokenizers.Tokenizer,
    roles: Roles,
    template: str | None = None,
    *,
    kind: WeightKind = "F16",
    name: str = "base",
    pre: str | None = None,
    embedding: EmbeddingConfig | None = None,
    chat: ChatTemplate | None = None,
) -> None:
    """Write the base atomically. pre: name of the pre-tokenizer, if the tokenizer's own has none in llama.cpp; embedding: pooling of text
    embeddings; chat: the base's template, if `template` differs from it.

    Raises ConfigError with what the format cannot express, ArtifactError for disk errors.
    """
    path = Path(path)
    tree = written(family, stored(model.cfg))
    tables = {t: torch.tensor(tree.pop(t)) for t in TABLES if t in tree}
    head = {"general.name": name, "general.file_type": FILE_TYPES[kind], "general.quantization_version": 2}
    metadata = tree | head | pooling_tree(embedding, family.model_types[0])
    vocab = vocabulary(inner, roles, template, model.cfg.text.vocab_size, pre)
    prove(vocab, inner, roles, template, chat=chat, nearest=pre is not None)
    metadata |= vocab
    rules = [r for r in family.rules(model.cfg) if isinstance(r, Rule)]
    own = {n: p.detach() for n, p in model.named_parameters()}
    shapes = own_shapes(model)
    plan = {t: (tuple(x.shape), TENSOR_TYPES[0]) for t, x in tables.items()}
    for rule in rules:
        for theirs, shape in zip(rule.theirs, their_shapes(rule, shapes), strict=True):
            plan[theirs] = shape, _kind(theirs, shape, kind)
    part = path.with_name(path.name + ".part")
    try:
        with disk_errors(path), open(part, "wb") as f:
            f.write(_header(metadata, plan))
            for one in tables.values():
                _put(f, one, TENSOR_TYPES[0], "a table of angles")
            for rule in rules:
                for theirs, x in zip(rule.theirs, rule.back([own[n] for n in rule.ours]), strict=True):
                    _put(f, x, plan[theirs][1], theirs)
        fsync(part)
        with disk_errors(path):
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _kind(name: str, shape: Shape, requested: WeightKind) -> TensorType:
    end = name in ("token_embd.weight", "output.weight")
    kind = TENSOR_TYPES[_CODES["Q8_0" if end and requested == "Q4_1" else requested]]
    if len(shape) == 1:
        return TENSOR_TYPES[_CODES["F32"]]
    return kind if shape[-1] % kind.block == 0 else TENSOR_TYPES[_CODES["F16"]]


def _header(metadata: Mapping[str, Any], plan: Mapping[str, tuple[Shape, TensorType]]) -> bytes:
    out = [b"GGUF", struct.pack("<IQQ", 3, len(plan), len(metadata))]
    for key, value in metadata.items():
        out += [_text(key), *_value(value)]
    offset = 0
    for name, (shape, kind) in plan.items():
        elements = int(np.prod(shape))
        out += [_text(name), struct.pack("<I", len(shape)), struct.pack(f"<{len(shape)}Q", *reversed(shape))]
        out.append(struct.pack("<IQ", _CODES[kind.name], offset))
        offset += _padded(elements // kind.block * kind.size)
    head = b"".join(out)
    return head + bytes(_padded(len(head)) - len(head))


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> Iterator[bytes]:
    """The type of a value, and the value."""
    if isinstance(value, bool):
        yield struct.pack("<IB", 7, value)
    elif isinstance(value, int):
        yield struct.pack("<II", 4, value)
    elif isinstance(value, float):
        yield struct.pack("<If", 6, value)
    elif isinstance(value, str):
        yield struct.pack("<I", 8) + _text(value)
    elif isinstance(value, list):
        yield struct.pack("<IIQ", 9, 8, len(value))
        yield from map(_text, value)
    else:
        code = {"i": 5, "f": 6}[value.dtype.kind]
        yield struct.pack("<IIQ", 9, code, len(value)) + value.tobytes()


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _put(f: BinaryIO, x: Tensor, kind: TensorType, name: str) -> None:
    x = x.to("cpu").contiguous()
    if kind.name == "BF16":
        raw = x.to(torch.bfloat16).view(torch.uint8).numpy().data
    elif kind.name in ("F16", "F32"):
        if kind.name == "F16" and bool((x.abs() > _LARGEST_F16).any()):
            raise ConfigError(f"tensor {name!r} has values beyond the range of F16", "write BF16 or F32")
        raw = x.to(torch.float16 if kind.name == "F16" else torch.float32).view(torch.uint8).numpy().data
    else:
        quantized = getattr(library(), kind.name).quantize(x.float().numpy())
        raw = np.ascontiguousarray(quantized).data
    f.write(raw)
    f.write(bytes(_padded(raw.nbytes) - raw.nbytes))
