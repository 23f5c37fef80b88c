"""Metadata lines that GGUF architectures share: each is both read and written (formats/fields.py).

Sources: llama.cpp's use of each key (src/models, src/llama-model.cpp), read for names, defaults and meaning.
"""

from dataclasses import dataclass
from typing import Any

from onebase.formats.families.decoder import heads_of, shared_width
from onebase.formats.family import Tree
from onebase.formats.fields import Each, Field, Found, Line, Put, Set, View, number, size
from onebase.formats.gguf.rotary import RopeLine
from onebase.formats.reader import ConfigReader
from onebase.model.config import RopeConfig

MAX_DEPTH = 1000
"""The deepest open models have 126 blocks."""
MAX_ROWS = 2**31
"""Maximum positions and tokens."""
RMS = "attention.layer_norm_rms_epsilon"
NORM_EPS = "block.norms.norm.eps trunk.final_norm.eps"


@dataclass(frozen=True)
class Vocabulary:
    """The number of tokens, from a key or from their list."""

    key: str

    def read(self, r: ConfigReader, found: Found) -> None:
        tokens = "tokenizer.ggml.tokens"
        count = len(r.get(tokens, list)) if r.has(tokens) or not r.has(self.key) else None
        found["codec.vocab_size"] = r.size(self.key, count, MAX_ROWS)

    def write(self, base: View, tree: Tree) -> None:
        tree[self.key] = base["codec.vocab_size"]


@dataclass(frozen=True)
class SameWidth:
    """The head width of values, equal to that of keys."""

    key: str

    def read(self, r: ConfigReader, found: Found) -> None:
        width = found["block.attn.head_dim"]
        r.must(self.key, width, width, "keys and values must have the same width")

    def write(self, base: View, tree: Tree) -> None:
        tree[self.key] = base["block.attn.head_dim"]


class Present:
    """Values that follow from the presence of tensors: biases of the first block, and a separate output matrix."""

    def read(self, r: ConfigReader, found: Found) -> None:
        names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
        fused = "blk.0.attn_qkv.bias" in r.tensors
        found["block.attn.bias"] = tuple(
            part
            for part, name in names.items()
            if f"blk.0.{name}.bias" in r.tensors or (fused and part != "o")
        )
        found["block.ff.bias"] = "blk.0.ffn_down.bias" in r.tensors
        found["codec.tied"] = "output.weight" not in r.tensors

    def write(self, base: View, tree: Tree) -> None:
        pass


@dataclass(frozen=True)
class WindowLine:
    """Gemma 2 and 3: in every `period` blocks all except the last have sliding-window attention. local: those blocks have their own rotary base;
    fixed: the period has no key."""

    arch: str
    period: int
    fixed: bool
    local: bool

    def read(self, r: ConfigReader, found: Found) -> None:
        window = r.get(f"{self.arch}.attention.sliding_window", int, None if self.fixed else 0) or None
        period = self.period if self.fixed else r.size(self._pattern, self.period)
        is_global = [window is None or i % period == period - 1 for i in range(found["trunk.depth"])]
        found["block.attn.window"] = Each(None if x else window for x in is_global)
        if self.local:
            rope = found["rope"]
            local = RopeConfig(base=r.positive(f"{self.arch}.rope.freq_base_swa", 10000.0), dim=rope.dim)
            found["block.attn.rope"] = Each(rope if x else local for x in is_global)

    def write(self, base: View, tree: Tree) -> None:
        windows = base.each("block.attn.window")
        first = next((i for i, w in enumerate(windows) if w is not None), None)
        if first is None:
            return
        tree[f"{self.arch}.attention.sliding_window"] = windows[first]
        period = windows.index(None) + 1 if None in windows else max(len(windows) + 1, self.period)
        if period != self.period and not self.fixed:
            tree[self._pattern] = period
        if self.local:
            tree[f"{self.arch}.rope.freq_base_swa"] = (
                base.each("block.attn.rope")[first] or RopeConfig()
            ).base

    @property
    def _pattern(self) -> str:
        return f"{self.arch}.attention.sliding_window_pattern"


class PhiWindow:
    """A window that llama.cpp reads but does not apply: it is written only if it is at least as wide as the context."""

    def read(self, r: ConfigReader, found: Found) -> None:
        found["block.attn.window"] = r.get("phi3.attention.sliding_window", int, 0) or None

    def write(self, base: View, tree: Tree) -> None:
        window = base["block.attn.window"]
        if window is not None and window >= base["codec.context"]:
            tree["phi3.attention.sliding_window"] = window


def _depth(r: ConfigReader, key: str, default: Any) -> int:
    """The declared number of blocks, bounded before any is built."""
    return r.size(key, default, most=min(MAX_DEPTH, len(r.tensors)))


def decoder_lines(a: str, *lines: Line, eps: str = RMS, normed: str = NORM_EPS) -> tuple[Line, ...]:
    """The lines that all architectures share, then those of one. eps: its key for the epsilon of the norms at the paths `normed`."""
    return (
        Put({"general.architecture": a, "general.type": "model"}),
        Field(f"{a}.block_count", "trunk.depth", _depth),
        size(f"{a}.context_length", "codec.context", most=MAX_ROWS),
        size(f"{a}.embedding_length", "trunk.width"),
        size(f"{a}.feed_forward_length", "block.ff.hidden"),
        size(f"{a}.attention.head_count", "block.attn.heads"),
        size(f"{a}.attention.head_count_kv", "block.attn.kv_heads", heads_of),
        size(f"{a}.attention.key_length", "block.attn.head_dim", shared_width),
        SameWidth(f"{a}.attention.value_length"),
        number(f"{a}.{eps}", normed),
        Vocabulary(f"{a}.vocab_size"),
        Present(),
        *lines,
    )


def gemma_lines(a: str, period: int, big: int, *lines: Line, normed: str = NORM_EPS) -> tuple[Line, ...]:
    """Gemma 2 and 3. The format has no key for the attention scale: llama.cpp derives it from the number of blocks, and the largest model, with
    `big` blocks, has its own."""

    def scale(r: ConfigReader, found: Found) -> float | None:
        heads = found["block.attn.heads"]
        return (found["trunk.width"] / heads) ** -0.5 if found["trunk.depth"] == big else None

    return decoder_lines(
        a,
        RopeLine(a),
        WindowLine(a, period, fixed=a == "gemma2", local=a != "gemma2"),
        Set("codec.scale", lambda r, found: found["trunk.width"] ** 0.5),
        Set("block.attn.scale", scale),
        *lines,
        normed=normed,
    )
