"""Score brier: how far the probabilities of the labels are from what is true (Brier, 1950), 0 to 2, lower is better."""

from onebase.evaluation.bootstrap import Score, mean_score
from onebase.evaluation.predictions import Labels
from onebase.evaluation.scores import Metric, register


def brier(said: Labels, seed: int) -> Score:
    return mean_score("brier", ((said.p_NL - said.has_NL) ** 2).sum(1), seed=seed)


register(Metric("brier", Labels, brier, lower=True, asked=True))
