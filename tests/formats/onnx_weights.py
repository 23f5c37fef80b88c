"""The tensors of an ONNX file, read without its library: protobuf is fields of a number, a kind and a value."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOAT = 1
GRAPH, NODE, INITIALIZER = 7, 1, 5
INPUT, OUTPUT, OP = 1, 2, 4
DIMS, DATA_TYPE, NAME, RAW = 1, 2, 8, 9


def onnx_tensors(path: Path) -> dict[str, Tensor]:
    """Every float32 initializer of a model by name, in the file's order."""
    model = memoryview(path.read_bytes())
    graph = next(value for number, value in _fields(model) if number == GRAPH)
    out = {}
    for number, value in _fields(graph):
        if number != INITIALIZER:
            continue
        parts: dict[int, Any] = dict(_fields(value))
        shape = [v for n, v in _fields(value) if n == DIMS]
        if parts[DATA_TYPE] == FLOAT and RAW in parts:
            numbers = np.frombuffer(parts[RAW], np.float32).copy().reshape(shape)
            out[bytes(parts[NAME]).decode()] = torch.from_numpy(numbers)
    return out


def onnx_products(path: Path) -> dict[str, str]:
    """For every matrix product of a model, by the name of its output, the name of its second factor."""
    graph = next(v for n, v in _fields(memoryview(path.read_bytes())) if n == GRAPH)
    out = {}
    for node in (v for n, v in _fields(graph) if n == NODE):
        parts = [(n, v) for n, v in _fields(node)]
        if (OP, b"MatMul") in [(n, bytes(v)) for n, v in parts if n == OP]:
            _, second = (bytes(v).decode() for n, v in parts if n == INPUT)
            out[next(bytes(v).decode() for n, v in parts if n == OUTPUT)] = second
    return out


def dinov2_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of `backbone` under the names of a saved Dinov2Model. The exporter kept most names; matrices it transposed and named
    anew (their products are still named after their modules), and the table of positions it cut in two."""
    found = onnx_tensors(path)
    named = {n.removeprefix("backbone."): x for n, x in found.items() if n.startswith("backbone.")}
    parts = [x for n, x in found.items() if re.fullmatch(r"onnx::(Concat|Reshape)_\d+", n) and x.ndim == 3]
    named["embeddings.position_embeddings"] = torch.cat(sorted(parts, key=lambda x: x.shape[1]), 1)
    for made, factor in onnx_products(path).items():
        if factor in found:
            module = made.removeprefix("/backbone/").removesuffix("/MatMul_output_0").replace("/", ".")
            named[f"{module}.weight"] = found[factor].T.contiguous()
    return named


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    i = 0
    while i < len(data):
        key, i = _varint(data, i)
        if key & 7 == 0:
            value, i = _varint(data, i)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(key & 7)
        if size is None:
            size, i = _varint(data, i)
        yield key >> 3, data[i : i + size]
        i += size


def _varint(data: memoryview, i: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[i]
        value, shift, i = value | (byte & 127) << shift, shift + 7, i + 1
        if byte < 128:
            return value, i
