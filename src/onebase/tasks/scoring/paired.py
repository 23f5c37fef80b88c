"""Scores of a base's vectors on texts that belong together."""

from onebase.evaluation.bootstrap import Score
from onebase.tasks.pairs import pair_scores
from onebase.tasks.scoring.asked import Asked


def embed_scores(asked: Asked) -> dict[str, Score]:
    """recall@1, @5, @10 and ndcg@10 of pairs; spearman of pairs with a score."""
    return pair_scores(asked.base.embed, asked.data, seed=asked.seed)
