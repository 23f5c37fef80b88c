"""Extractive question answering: question and text are read together, long texts in windows, and the most likely spans are returned. T tokens,
n of them of the text, L tokens of an answer at most."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from onebase.base.folder import LoadedBase
from onebase.engine.answers import head_of, states_of
from onebase.engine.features import given_tokens
from onebase.errors import DataError, UserError
from onebase.methods.folder import Attached
from onebase.methods.spans import Place
from onebase.modality.text.pairs import pair_frame
from onebase.modality.text.sample import Tokens

OVERLAP = 128
"""Overlap of two windows of a text in tokens, if they are long enough (as in the usual script for SQuAD)."""
LONGEST = 30
"""Tokens of an answer at most."""
LEAST = 8
"""Tokens of the text that must fit after a question."""


@dataclass(frozen=True)
class PassageWindow:
    """A part of a text after its question. row: index of the row. first: index of its first token in `tokens`. places: character offsets of its tokens in
    the text."""

    row: int
    tokens: Tokens
    first: int
    places: Sequence[Place]


@dataclass(frozen=True)
class Extracted:
    """A part of a text that answers a question: characters `start` to `end` (exclusive), and how probable it is, 0 to 1."""

    text: str
    start: int
    end: int
    score: float


def windows(
    base: LoadedBase,
    pairs: Sequence[tuple[str, str]],
    limit: int | None = None,
    before: int = 0,
    typed: bool = True,
) -> list[PassageWindow]:
    """Every text after its question, in as many windows as needed. before: context positions that an adapter uses. Raises DataError for a question
    that is too long, and a text without tokens."""
    tok, frame = base.codec.tokenizer, pair_frame(base.codec.tokenizer)
    context = base.model.cfg.text.context - before
    out: list[PassageWindow] = []
    for row, (question, text) in enumerate(pairs):
        query_ids, (ids, places) = tok.encode(question), tok.encode_placed(text)
        size = min(limit or context, context) - frame.size - len(query_ids)
        if not ids or size < min(LEAST, len(ids)):
            what = f"a question of {len(query_ids)} tokens, which leaves no room for its text"
            raise DataError(
                f"row {row + 1} has " + (what if ids else "a text without tokens"), "shorten it, or fix it"
            )
        step = size - min(OVERLAP, size // 2)
        for start in range(0, max(1, len(ids) - size + step), step):
            framed, types = frame.framed(query_ids, ids[start : start + size])
            read = replace(
                given_tokens(framed, len(out)), types=np.asarray(types, np.int32) if typed else None
            )
            first = len(frame.before) + len(query_ids) + len(frame.between)
            out.append(PassageWindow(row, read, first, places[start : start + size]))
    return out


def extracted(on: Attached, pairs: Sequence[tuple[str, str]], top: int = 1) -> list[list[Extracted]]:
    """For each question and text the `top` most likely answers, the best first. The probability of an answer is that of its first token times that of its
    last, over all tokens of the text."""
    if top < 1:
        raise UserError(f"top is {top}", "give at least 1")
    head, base = on.config.head, on.base
    assert head is not None
    read = windows(base, pairs, head.limit, base.model.virtual_counts(on.routing, 1)[0], head.typed)
    logits = states_of(base, [w.tokens for w in read], on.routing, head_of(on))
    each = [z_T2[w.first : w.first + len(w.places)].double() for w, z_T2 in zip(read, logits, strict=True)]
    out = []
    for row, (_, text) in enumerate(pairs):
        mine = [i for i, w in enumerate(read) if w.row == row]
        whole_2 = torch.cat([each[i] for i in mine]).logsumexp(0)
        scores: dict[tuple[int, int], float] = {}
        for i in mine:
            start_n, end_n = (each[i] - whole_2).T
            # By the first token, and the number of tokens after it.
            ends_nL = F.pad(end_n, (0, LONGEST - 1), value=-torch.inf).unfold(0, LONGEST, 1)
            z_nL = start_n[:, None] + ends_nL
            best = z_nL.flatten().topk(min(4 * top, z_nL.numel()))
            for z, at in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                if z == -torch.inf:
                    break
                one = at // LONGEST
                a, b = read[i].places[one][0], read[i].places[one + at % LONGEST][1]
                part = text[a:b]
                a, b = a + len(part) - len(part.lstrip()), a + len(part.rstrip())
                if a < b:
                    scores[a, b] = max(scores.get((a, b), -torch.inf), z)
        order = sorted(scores, key=lambda k: -scores[k])[:top]
        out.append([Extracted(text[a:b], a, b, float(torch.tensor(scores[a, b]).exp())) for a, b in order])
    return out
