"""Texts that belong together: rows of pairs, and how well a base's vectors find them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F

from onebase.data import read_rows
from onebase.data.labelled import Data, Records
from onebase.engine.text_index import Embed
from onebase.errors import DataError
from onebase.evaluation.predictions import Alike, Retrieved
from onebase.evaluation.retrieval import relevant_ranks


def pair_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What rows of anchor and positive must have: a negative, or a score, where any of them has one."""
    return ("anchor", "positive", *(c for c in ("negative", "score") if any(c in r for r in rows)))


def score_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with how alike a row says that its texts are, and what to do."""
    try:
        value = float(row.get("score", 0.0))
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if 0 <= value <= 1:
        return None
    return f"has the score {row['score']!r}", "give a number from 0 (nothing in common) to 1 (the same)"


def compared(embed: Embed, data: Data) -> Retrieved | Alike:
    """Of pairs with a score: their cosines. Else where the positives of each anchor are found among all positives and negatives of the data.
    Raises DataError."""
    records = Records.of(data)
    rows = read_rows(records, pair_columns(records.sound), check=score_problem)
    if "score" in rows[0]:
        wanted = [float(r["score"]) for r in rows]
        a_ND, b_ND = (F.normalize(embed([r[side] for r in rows]), dim=-1) for side in ("anchor", "positive"))
        return Alike(wanted, (a_ND * b_ND).sum(-1).double().numpy())
    found = [r["positive"] for r in rows] + [r["negative"] for r in rows if "negative" in r]
    candidates = {text: i for i, text in enumerate(dict.fromkeys(found))}
    if len(candidates) < 2:
        raise DataError("there is one candidate only: nothing to find it among", "give pairs of other texts")
    relevant: dict[str, list[int]] = {}
    for r in rows:
        mine, at = relevant.setdefault(r["anchor"], []), candidates[r["positive"]]
        if at not in mine:
            mine.append(at)
    a_QD, c_CD = (F.normalize(embed(list(texts)), dim=-1).double() for texts in (relevant, candidates))
    own = [[candidates[text]] if text in candidates else [] for text in relevant]
    return Retrieved(relevant_ranks((a_QD @ c_CD.T).numpy(), list(relevant.values()), own))
