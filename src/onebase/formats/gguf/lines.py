"""Lines of the metadata that architectures of GGUF share: each is read and written by the same words (formats/fields.py).

Sources: llama.cpp's use of each key (src/models, src/llama-model.cpp), read for names, defaults and meaning.
"""

from dataclasses import dataclass
from typing import Any

from onebase.formats.families.decoder import heads_of, shared_width
from onebase.formats.family import Tree
from onebase.formats.fields import Each, Field, Found, Line, Put, Set, View, number, size
from onebase.formats.gguf.rotary import Rope
from onebase.formats.reader import Reader
from onebase.model.config import RopeConfig

MAX_DEPTH = 1000
"""The deepest open models have 126 blocks."""
MAX_ROWS = 2**31
"""Positions and tokens there may be at most."""
RMS = "attention.layer_norm_rms_epsilon"
NORM_EPS = "block.norms.norm.eps trunk.final_norm.eps"


@dataclass(frozen=True)
class Vocabulary:
    """How many tokens: said by a key, or by their list."""

    key: str

    def read(self, r: Reader, found: Found) -> None:
        tokens = "tokenizer.ggml.tokens"
        count = len(r.get(tokens, list)) if r.has(tokens) or not r.has(self.key) else None
        found["codec.vocab_size"] = r.size(self.key, count, MAX_ROWS)

    def write(self, base: View, tree: Tree) -> None:
        tree[self.key] = base["codec.vocab_size"]


@dataclass(frozen=True)
class SameWidth:
    """Features of a value: those of a key."""

    key: str

    def read(self, r: Reader, found: Found) -> None:
        width = found["block.attn.head_dim"]
        r.must(self.key, width, width, "keys and values have one width here")

    def write(self, base: View, tree: Tree) -> None:
        tree[self.key] = base["block.attn.head_dim"]


class Present:
    """What the tensors of the first block and of the ends say by being there."""

    def read(self, r: Reader, found: Found) -> None:
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
class Windows:
    """Gemma 2 and 3: of every `period` blocks all but the last see a window only. local: their rotary positions have a base of their own;
    fixed: no key says the period."""

    arch: str
    period: int
    fixed: bool
    local: bool

    def read(self, r: Reader, found: Found) -> None:
        window = r.get(f"{self.arch}.attention.sliding_window", int, None if self.fixed else 0) or None
        period = self.period if self.fixed else r.size(self._pattern, self.period)
        sees_all = [window is None or i % period == period - 1 for i in range(found["trunk.depth"])]
        found["block.attn.window"] = Each(None if x else window for x in sees_all)
        if self.local:
            rope = found["rope"]
            local = RopeConfig(base=r.positive(f"{self.arch}.rope.freq_base_swa", 10000.0), dim=rope.dim)
            found["block.attn.rope"] = Each(rope if x else local for x in sees_all)

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
    """A window that llama.cpp reads and does not apply: it is written where it is wider than the context."""

    def read(self, r: Reader, found: Found) -> None:
        found["block.attn.window"] = r.get("phi3.attention.sliding_window", int, 0) or None

    def write(self, base: View, tree: Tree) -> None:
        window = base["block.attn.window"]
        if window is not None and window >= base["codec.context"]:
            tree["phi3.attention.sliding_window"] = window


def _depth(r: Reader, key: str, default: Any) -> int:
    """Blocks announced: bounded before anything is built of them."""
    return r.size(key, default, most=min(MAX_DEPTH, len(r.tensors)))


def decoder_lines(a: str, *lines: Line, eps: str = RMS, normed: str = NORM_EPS) -> tuple[Line, ...]:
    """The lines that all architectures share, and those of one. eps: its key for the norms at the paths `normed`."""
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
    """Gemma 2 and 3. The format does not say the scale of scores: llama.cpp takes it from the number of blocks, and the largest model, of
    `big` blocks, has its own."""

    def scale(r: Reader, found: Found) -> float | None:
        heads = found["block.attn.heads"]
        return (found["trunk.width"] / heads) ** -0.5 if found["trunk.depth"] == big else None

    return decoder_lines(
        a,
        Rope(a),
        Windows(a, period, fixed=a == "gemma2", local=a != "gemma2"),
        Set("codec.scale", lambda r, found: found["trunk.width"] ** 0.5),
        Set("block.attn.scale", scale),
        *lines,
        normed=normed,
    )
