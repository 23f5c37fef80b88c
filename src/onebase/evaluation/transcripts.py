"""Word and character error rates of transcripts, counted by jiwer. N transcripts."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from onebase.errors import UserError
from onebase.evaluation.bootstrap import Score, ratio_score, same_length
from onebase.evaluation.paired import RowSums
from onebase.evaluation.words import words


def transcript_scores(
    targets: Sequence[str], predictions: Sequence[str], *, seed: int = 0
) -> dict[str, Score]:
    """`wer` and `cer`: edits (substitutions, deletions, insertions) per word and per character of the targets, from 0; whole transcripts are
    resampled. Case and punctuation do not count (`words`). Raises UserError without jiwer."""
    names = ("wer", "cer")
    pairs = zip(names, error_sums(targets, predictions), strict=True)
    return {name: ratio_score(name, sums.over, sums.under, seed=seed) for name, sums in pairs}


def error_sums(targets: Sequence[str], predictions: Sequence[str]) -> tuple[RowSums, RowSums]:
    """Edits and words, and edits and characters, of each transcript."""
    same_length(targets, predictions)
    if importlib.util.find_spec("jiwer") is None:
        raise UserError(
            "wer needs the package 'jiwer', which is not installed", 'pip install "onebase[eval]"'
        )
    import jiwer

    counts = []
    for target, prediction in zip(targets, predictions, strict=True):
        a, b = " ".join(words(target)), " ".join(words(prediction))
        if not a:  # jiwer refuses it; every word of the prediction is an insertion
            counts.append((len(b.split()), 0, len(b), 0))
            continue
        by_word, by_letter = jiwer.process_words(a, b), jiwer.process_characters(a, b)
        edits = [x.substitutions + x.deletions + x.insertions for x in (by_word, by_letter)]
        counts.append((edits[0], len(a.split()), edits[1], len(a)))
    table_N4 = np.array(counts, float).reshape(-1, 4)
    return RowSums(table_N4[:, 0], table_N4[:, 1]), RowSums(table_N4[:, 2], table_N4[:, 3])
