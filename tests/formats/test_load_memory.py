"""Loading takes at most 1.3 times the weights: the peak of a process of its own, over what it held before."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.formats.gguf_files import bytes_vocab, write
from tests.helpers import tiny_base

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 9,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
#: the embedding, which is the head too, is nine tenths of the weights
GEMMA: dict[str, Any] = {
    "model_type": "gemma3_text",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "vocab_size": 262144,
    "sliding_window": 512,
    "query_pre_attn_scalar": 128,
}
#: nearly all of it is the embedding, which stands in the file a second time, as the head
TWICE: dict[str, Any] = LLAMA | {"num_hidden_layers": 2, "vocab_size": 160_000, "tie_word_embeddings": True}
BYTES = {"BF16": 2, "F32": 4}
PEAK = """
import re, sys
from pathlib import Path
import onebase

def said(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

onebase.load(sys.argv[1])  # what is imported and set up once
before = said("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
base = onebase.load(sys.argv[2])
weights = sum(p.nbytes for p in base.loaded.model.parameters())
print((said("VmHWM") - before) / weights, weights)
"""


def shapes(cfg: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Llama or Gemma 3 model by name."""
    d, f, v = cfg["hidden_size"], cfg["intermediate_size"], cfg["vocab_size"]
    h = cfg.get("head_dim", d // cfg["num_attention_heads"])
    q, k = cfg["num_attention_heads"] * h, cfg["num_key_value_heads"] * h
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,)}
    gemma = cfg["model_type"] == "gemma3_text"
    if not gemma:
        out["lm_head.weight"] = (v, d)
    norms = ["input_layernorm", "post_attention_layernorm"]
    norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if gemma else []
    for i in range(cfg["num_hidden_layers"]):
        at = f"model.layers.{i}."
        out |= {f"{at}{n}.weight": (d,) for n in norms}
        out |= {
            f"{at}self_attn.{n}_proj.weight": s
            for n, s in (("q", (q, d)), ("k", (k, d)), ("v", (k, d)), ("o", (d, q)))
        }
        out |= {
            f"{at}mlp.{n}_proj.weight": s for n, s in (("gate", (f, d)), ("up", (f, d)), ("down", (d, f)))
        }
        if gemma:
            out |= {f"{at}self_attn.{n}_norm.weight": (h,) for n in "qk"}
    return out


def save_zeros(file: Path, tensors: dict[str, tuple[int, ...]], kind: str) -> None:
    """A safetensors file whose data is a hole in the disk: zeros that are there as any other bytes once they are read."""
    header, end = {}, 0
    for name, shape in tensors.items():
        start, end = end, end + int(torch.Size(shape).numel()) * BYTES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(file, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + end)


def whole(place: Path, cfg: dict[str, Any], kind: str) -> Path:
    save_zeros(place / "model.safetensors", shapes(cfg), kind)
    return place


def shards(place: Path, cfg: dict[str, Any], kind: str) -> Path:
    tensors = list(shapes(cfg).items())
    table = {}
    for i in range(3):
        name = f"model-{i + 1:05}-of-00003.safetensors"
        save_zeros(place / name, dict(tensors[i::3]), kind)
        table |= {n: name for n, _ in tensors[i::3]}
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return place


def gguf(place: Path, cfg: dict[str, Any], kind: str) -> Path:
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names |= {
        f"self_attn.{x}_proj": f"attn_{y}" for x, y in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "output"))
    }
    names |= {f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")}
    ends = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    tensors, kinds = {}, {}
    for name, shape in shapes(cfg).items():
        stem = name.removesuffix(".weight")
        if stem in ends:
            new = ends[stem]
        else:
            _, _, i, rest = stem.split(".", 3)
            new = f"blk.{i}.{names[rest]}"
        tensors[f"{new}.weight"] = torch.zeros(shape)
        kinds[f"{new}.weight"] = "F32" if len(shape) == 1 else kind
    own = {
        "block_count": cfg["num_hidden_layers"],
        "context_length": 256,
        "embedding_length": cfg["hidden_size"],
        "feed_forward_length": cfg["intermediate_size"],
        "attention.head_count": cfg["num_attention_heads"],
        "attention.head_count_kv": cfg["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": cfg["vocab_size"],
    }
    vocab = bytes_vocab(["</s>"])
    fill = cfg["vocab_size"] - len(vocab["tokenizer.ggml.tokens"])
    vocab["tokenizer.ggml.tokens"] = [*vocab["tokenizer.ggml.tokens"], *(f"[PAD{i}]" for i in range(fill))]
    vocab.pop("tokenizer.ggml.token_type", None)
    return write(
        place / "model.gguf", "llama", {f"llama.{k}": v for k, v in own.items()} | vocab, tensors, kinds
    )


Form = Callable[[Path, dict[str, Any], str], Path]


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize(
    ("form", "cfg"),
    [(whole, LLAMA), (shards, LLAMA), (whole, GEMMA), (shards, GEMMA), (gguf, LLAMA), (whole, TWICE)],
    ids=["whole", "shards", "huge-vocabulary", "huge-vocabulary-shards", "gguf", "tied-twice"],
)
def test_the_peak_is_little_more_than_the_weights(
    form: Form, cfg: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    import onebase

    onebase.Base(tiny_base(portable=True)).export(tmp_path / "tiny")
    place = tmp_path / "large"
    place.mkdir()
    made = form(place, cfg, kind)
    if made.is_dir():
        (place / "config.json").write_text(json.dumps(cfg))
        (place / "tokenizer.json").write_bytes((tmp_path / "tiny" / "tokenizer.json").read_bytes())
    line = [sys.executable, "-c", PEAK, str(tmp_path / "tiny"), str(made)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    peak, weights = map(float, done.stdout.split())
    assert weights > 2e8
    assert peak <= 1.3
