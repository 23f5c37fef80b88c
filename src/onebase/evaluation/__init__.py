"""Metrics with confidence intervals, classical baselines, and the gate that tests whether a base is better than they are."""

from onebase.evaluation.bootstrap import Score, bootstrap, paired_difference
from onebase.evaluation.gate import System, Verdict, gate
from onebase.evaluation.metrics import LOWER_IS_BETTER, METRICS, metric

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "Score",
    "System",
    "Verdict",
    "bootstrap",
    "gate",
    "metric",
    "paired_difference",
]
