"""GGUF files for tests, written by the `gguf` package and named by its tables: neither is used by what is tested."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor


def write(
    path: Path,
    arch: str,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    kinds: Mapping[str, str] | None = None,
    parts: int = 0,
) -> Path:
    """kinds: types of tensors other than F32. parts: tensors in each part of a split file, 0 for one file."""
    w = gguf.GGUFWriter(str(path), arch, split_max_tensors=parts)
    for key, value in metadata.items():
        kind = {
            bool: gguf.GGUFValueType.BOOL,
            int: gguf.GGUFValueType.UINT32,
            float: gguf.GGUFValueType.FLOAT32,
        }
        if isinstance(value, str):
            w.add_string(key, value)
        elif isinstance(value, list):
            w.add_array(key, value)
        else:
            w.add_key_value(key, value, kind[type(value)])
    for name, x in tensors.items():
        to = gguf.GGMLQuantizationType[(kinds or {}).get(name, "F32")]
        data = gguf.quants.quantize(np.ascontiguousarray(x.float().numpy()), to)
        w.add_tensor(name, data, raw_dtype=to)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def with_keys(path: Path, out: Path, change: Mapping[str, Any]) -> Path:
    """A file of the llama architecture with other metadata (None: without the key)."""
    reader = gguf.GGUFReader(path)
    metadata = {k: f.contents() for k, f in reader.fields.items() if not k.startswith(("GGUF.", "general."))}
    tensors = {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors}
    given = {k: v for k, v in (metadata | change).items() if v is not None}
    return write(out, "llama", given, tensors)


def named(arch: str, model: torch.nn.Module, blocks: int) -> dict[str, Tensor]:
    """A transformers model's weights under the names that the package's table gives; ties are left out."""
    wanted = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == arch)
    table = gguf.get_tensor_name_map(wanted, blocks)
    out = {}
    for name, p in model.named_parameters():
        stem, _, kind = name.rpartition(".")
        found = table.get_name(stem)
        assert found is not None, name
        out[f"{found}.{kind}"] = p.detach()
    return out


def interleaved(x: Tensor, heads: int) -> Tensor:
    """Rows of q or k as llama.cpp's converter of Llama puts them: the halves of each head, taken in turn."""
    out = torch.empty_like(x)
    size = len(x) // heads
    for h in range(heads):
        for i in range(size // 2):
            out[h * size + 2 * i] = x[h * size + i]
            out[h * size + 2 * i + 1] = x[h * size + size // 2 + i]
    return out


def bytes_vocab(extra: list[str]) -> dict[str, Any]:
    """A byte-level tokenizer: 256 letters, one merge, and special tokens."""
    letters = sorted(tokenizers_alphabet())
    tokens = [*letters, "he", *extra]
    kinds = [1] * (len(letters) + 1) + [3] * len(extra)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
    }


def tokenizers_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return list(pre_tokenizers.ByteLevel.alphabet())
