"""Pairs of texts that belong together: their columns and checks, and how well a base's vectors retrieve them."""

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
    """The required columns of pairs: anchor and positive, and negative or score where any row has one."""
    return ("anchor", "positive", *(c for c in ("negative", "score") if any(c in r for r in rows)))


def score_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the similarity score of a row, and what to do."""
    try:
        value = float(row.get("score", 0.0))
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if 0 <= value <= 1:
        return None
    return f"has the score {row['score']!r}", "give a number from 0 (unrelated) to 1 (same meaning)"


def compared(embed: Embed, data: Data) -> Retrieved | Alike:
    """For pairs with a score, their cosines. Otherwise the ranks of each anchor's positives among all positives and negatives of the data.
    Raises DataError."""
    records = Records.of(data)
    rows = read_rows(records, pair_columns(records.sound), check=score_problem)
    if "score" in rows[0]:
        wanted = [float(r["score"]) for r in rows]
        a_ND, b_ND = (F.normalize(embed([r[side] for r in rows]), dim=-1) for side in ("anchor", "positive"))
        return Alike(wanted, (a_ND * b_ND).sum(-1).double().numpy())
    texts = [r["positive"] for r in rows] + [r["negative"] for r in rows if "negative" in r]
    candidates = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    if len(candidates) < 2:
        raise DataError(
            "all positives and negatives are the same text", "give at least two different candidates to rank"
        )
    relevant: dict[str, list[int]] = {}
    for r in rows:
        mine, at = relevant.setdefault(r["anchor"], []), candidates[r["positive"]]
        if at not in mine:
            mine.append(at)
    a_QD, c_CD = (F.normalize(embed(list(texts)), dim=-1).double() for texts in (relevant, candidates))
    own = [[candidates[text]] if text in candidates else [] for text in relevant]
    return Retrieved(relevant_ranks((a_QD @ c_CD.T).numpy(), list(relevant.values()), own))
