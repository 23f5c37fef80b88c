"""Samples as readable text: decoded, special tokens by name, media as what they are, `[image 28x28]`; what is supervised between « »."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer

SEGMENTS = 20
"""Segments shown at the beginning and at the end of a sample that has more than twice as many."""


@dataclass(frozen=True)
class LedgerRow:
    """One sample as the trainer sees it: `segments` of (decoded text, supervised) and the counts."""

    id: str
    source: str
    segments: tuple[tuple[str, bool], ...]
    tokens: int
    supervised: int


def ledger_rows(tokens: Iterable[Tokens], tokenizer: Tokenizer, rows: int = 3) -> list[LedgerRow]:
    """The first `rows` samples as the trainer sees them, special tokens shown by name."""
    out: list[LedgerRow] = []
    for item in itertools.islice(tokens, rows):
        learnt = item.loss.copy()
        for m in item.media:
            learnt[m.start : m.stop] = m.noise
        inside = {m.start: m for m in item.media}
        borders = {b for m in item.media for b in (m.start, m.stop)}
        cuts = sorted(
            {0, *(np.flatnonzero(np.diff(learnt.astype(np.int8))) + 1).tolist(), len(item), *borders}
        )
        segments: list[tuple[str, bool]] = []
        for a, b in itertools.pairwise(cuts):
            media = inside.get(a)
            if media is not None:
                segments.append((f"[{media.content.shown}]", bool(learnt[a]) and len(media) > 0))
            if not media:  # of media without tokens in the text too
                segments.append(
                    (tokenizer.decode(item.ids[a:b].tolist(), skip_special=False), bool(learnt[a]))
                )
        out.append(LedgerRow(item.id, item.source, tuple(segments), len(item), int(learnt.sum())))
    return out


def render_rows(rows: Iterable[LedgerRow], width: int = 300) -> str:
    """The rows as plain text, supervised text between « ». Long segments lose their middle, never their end."""
    lines = []
    for row in rows:
        name = " ".join(x for x in (row.source, row.id) if x) or "sample"
        lines.append(f"{name}: {row.supervised} of {row.tokens} tokens supervised")
        lines.append("  " + marked(row, width))
    return "\n".join(lines)


def marked(row: LedgerRow, width: int) -> str:
    """One sample on one line, supervised text between « »; with very many segments only the first and the last."""
    parts = [f"«{_short(t, width)}»" if s else _short(t, width) for t, s in row.segments]
    if len(parts) > 2 * SEGMENTS:
        parts[SEGMENTS:-SEGMENTS] = [" ... "]
    return "".join(parts)


def _short(text: str, width: int) -> str:
    if len(text) > width:
        half = max(1, width // 2)
        text = f"{text[:half]} ... {text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
