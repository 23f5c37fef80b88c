"""An index of texts and their vectors, searched by cosine similarity, in memory or in a folder. N texts, D width of a vector.

A search is exact: one matrix-vector product. That suits up to a million texts (384 features: 1.5 GB, and a fifth of a second on two cores); more need
an approximate index.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.artifact.files import ArtifactWriter, canonical_json, check_fast, read_manifest
from onebase.artifact.record import Record
from onebase.artifact.tensors import load_tensors, save_tensors
from onebase.base.folder import state_of
from onebase.errors import ArtifactError, UserError
from onebase.methods.bound import Bound

KIND, VECTORS, ROWS = "index", "vectors.safetensors", "rows.jsonl"
CHUNK = 1024
"""Texts that are embedded at a time; progress is reported after each chunk."""
Embed = Callable[[Sequence[str]], Tensor]
"""Texts to vectors [N, D]."""
Row = Mapping[str, Any]
"""A text in column `text`, and any other columns."""


@dataclass(frozen=True)
class Near:
    """A text and its cosine similarity to the query, at most 1. row: the other columns of its row."""

    text: str
    score: float
    row: Row = field(default_factory=dict)


@dataclass(frozen=True)
class IndexMaker:
    """The origin of the vectors of an index: fingerprint and name of a base, hash of its tokenizer, fingerprints of its adapters."""

    base: str
    name: str
    tokenizer: str
    adapters: tuple[str, ...] = ()

    @classmethod
    def of(cls, bound: Bound) -> "IndexMaker":
        """The origin for a base with its adapters. The head of a published checkpoint does not change vectors, so it is left out."""
        hashes, on = bound.loaded.hashes, None if bound.own else bound.attached
        plain = bound.plain
        return cls(
            plain.fingerprint,
            plain.name,
            hashes.get("tokenizer", ""),
            () if on is None else tuple(a.fingerprint for a in on.stack),
        )

    def __str__(self) -> str:
        on = f" with adapter {', '.join(f'{a[:16]}...' for a in self.adapters)}" if self.adapters else ""
        return f"{self.name} ({self.base[:16]}...){on}"


class Index:
    """Rows with a text each, and their vectors, float32 [N, D] of length 1. Created by `Base.index` or `Index.load`."""

    def __init__(self, bound: Bound, embed: Embed, rows: Iterable[Row | str] = ()) -> None:
        self.maker, self._embed = IndexMaker.of(bound), embed
        self.rows: list[Row] = []
        self.vectors_ND = torch.empty(0, 0)
        self.add(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, rows: Iterable[Row | str], tell: Callable[[int, int], None] = lambda done, of: None) -> int:
        """Embed and add rows (a text is a row with only that column); returns how many are new. Known rows are skipped, and known texts are not embedded
        again. tell(done, total): called with the number of embedded texts. Raises UserError for a row without a text."""
        there = {_key(r) for r in self.rows}
        at = {str(r["text"]): i for i, r in enumerate(self.rows)}
        new, lacking = [], dict[str, int]()
        for row in _rows(rows):
            if (key := _key(row)) not in there:
                there.add(key)
                new.append(row)
                if row["text"] not in at:
                    lacking.setdefault(row["text"], len(lacking))
        texts, parts = list(lacking), []
        for start in range(0, len(texts), CHUNK):
            parts.append(F.normalize(self._embed(texts[start : start + CHUNK]).float(), dim=-1))
            tell(min(start + CHUNK, len(texts)), len(texts))
        new_MD = torch.cat(parts) if parts else torch.empty(0, self.vectors_ND.shape[1])
        if new:
            vectors = [self.vectors_ND[at[t]] if (t := r["text"]) in at else new_MD[lacking[t]] for r in new]
            self.vectors_ND = torch.cat([*([self.vectors_ND] if self.rows else []), torch.stack(vectors)])
            self.rows += new
        return len(new)

    def search(self, query: str, top: int | None = 10) -> list[Near]:
        """The rows nearest to a query, nearest first, ties in the order of addition. top: number of rows at most (None: all). Raises UserError."""
        check_query(query, top)
        if not self.rows:
            raise UserError("the index is empty", "add texts to it first")
        q_D = F.normalize(self._embed([query])[0].float(), dim=-1)
        score_N = self.vectors_ND @ q_D
        order = best(score_N, len(self) if top is None else top)
        return [
            Near(
                str(self.rows[i]["text"]),
                float(score_N[i]),
                {k: v for k, v in self.rows[i].items() if k != "text"},
            )
            for i in order
        ]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the index as a folder, atomically. Raises ArtifactError if the folder exists, unless `overwrite`."""
        m = self.maker
        facts = {
            "base": m.base,
            "name": m.name,
            "tokenizer": m.tokenizer,
            "adapters": list(m.adapters),
            "texts": len(self),
        }
        record = Record(KIND)
        record.add_parent("base", m.base, m.name, tokenizer=m.tokenizer)
        for adapter in m.adapters:
            record.add_parent("adapter", adapter)
        record.add("texts", len(self), "counted")
        with ArtifactWriter(path, kind=KIND, facts=facts, overwrite=overwrite) as w:
            save_tensors(w.path(VECTORS), {"vectors": self.vectors_ND})
            with w.path(ROWS).open("w", encoding="utf-8") as f:
                f.writelines(json.dumps(dict(r), ensure_ascii=True) + "\n" for r in self.rows)
            record.save(w.path("record.json"))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, bound: Bound, embed: Embed) -> "Index":
        """Read a folder. Raises ArtifactError if it is damaged, and UserError if it is from another base or adapter, naming both."""
        path = Path(path)
        check_maker(path, IndexMaker.of(bound))
        check_fast(path)
        index = cls(bound, embed)
        with (path / ROWS).open(encoding="utf-8") as f:
            index.rows = [json.loads(line) for line in f]
        index.vectors_ND = load_tensors(path / VECTORS)["vectors"]
        if len(index.vectors_ND) != len(index.rows):
            raise ArtifactError(
                f"{path} has {len(index.vectors_ND)} vectors for {len(index.rows)} texts",
                "build the index again",
            )
        return index


class LastTexts:
    """Caches the vectors of the texts of the last search: another search in the same texts embeds only the query."""

    def __init__(self, bound: Bound, embed: Embed) -> None:
        self._bound, self._embed = bound, embed
        self._kept: tuple[object, Index] | None = None

    def nearest(self, query: str, texts: Sequence[str], top: int | None) -> list[Near]:
        """All texts, or the `top` nearest, the nearest first. Raises UserError."""
        check_query(query, top)
        if isinstance(texts, str) or not texts:
            raise UserError(f"the texts are {texts!r}", "give a list of texts to search")
        key = (_texts_key(texts), state_of(self._bound.loaded.model))
        if self._kept is None or self._kept[0] != key:
            rows = ({"text": text, "at": i} for i, text in enumerate(texts))
            self._kept = key, Index(self._bound, self._embed, rows)
        return [Near(n.text, n.score) for n in self._kept[1].search(query, top)]


def check_maker(path: Path, maker: IndexMaker) -> None:
    """Raises UserError if the index in a folder was built with another base or adapter."""
    facts = read_manifest(path, KIND)["facts"]
    origin = IndexMaker(facts["base"], facts["name"], facts["tokenizer"], tuple(facts["adapters"]))
    if (origin.base, origin.tokenizer, origin.adapters) != (maker.base, maker.tokenizer, maker.adapters):
        raise UserError(
            f"the index {path} was built with {origin}, this is {maker}: their vectors cannot be compared",
            "search with the base and adapter of the index, or build another index",
        )


def check_query(query: object, top: int | None) -> None:
    """Raises UserError for an invalid query or `top`."""
    if not isinstance(query, str) or not query.strip():
        raise UserError(f"the query is {query!r}", "give a text that is not empty")
    if top is not None and top < 1:
        raise UserError(f"top is {top}", "give at least 1, or omit it for all")


def best(score_N: Tensor, top: int) -> list[int]:
    """The indices of the `top` largest scores, the largest first, ties in input order."""
    if top < len(score_N):
        least = score_N.topk(top).values[-1]
        among = (score_N >= least).nonzero()[:, 0]  # in input order, with all ties of the last chosen score
        return among[score_N[among].argsort(descending=True, stable=True)][:top].tolist()
    return score_N.argsort(descending=True, stable=True).tolist()


def _texts_key(texts: Sequence[str]) -> bytes:
    """The hash of texts and their order."""
    state = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        state.update(len(raw).to_bytes(8, "little") + raw)
    return state.digest()


def _rows(rows: Iterable[Row | str]) -> Iterator[dict[str, Any]]:
    for i, row in enumerate([rows] if isinstance(rows, str) else rows):
        columns = {"text": row} if isinstance(row, str) else dict(row)
        if not isinstance(columns.get("text"), str) or not columns["text"].strip():
            raise UserError(f"row {i + 1} has no text", "give texts, or rows with a column `text`")
        yield columns


def _key(row: Row) -> str:
    return canonical_json(dict(row))
