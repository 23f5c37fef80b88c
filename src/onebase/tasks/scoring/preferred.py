"""Scores of pairs of answers: by what a base finds likelier, by what it learnt to prefer, or by a reward model."""

import numpy as np

from onebase.evaluation.bootstrap import Score
from onebase.evaluation.likelihood import completion_nats
from onebase.evaluation.preference import margin, wins
from onebase.tasks.preferences import SIDES, pair_tokens, preference_rows
from onebase.tasks.scoring.asked import Asked
from onebase.tasks.scoring.rewarded import win_rate


def prefer_scores(asked: Asked) -> dict[str, Score]:
    """preferred: the share of pairs whose chosen answer is likelier by the token. With an adapter of task prefer that had a reference also
    reward_accuracy and margin: by beta times the log-ratio to the base without the adapter (a token, for ipo). Where a reward judges, also
    win_rate: of what is written with the adapter against what the base writes without (`rewarded.win_rate`)."""
    base, seed = asked.base, asked.seed
    room = base.config.text.context - base.loaded.model.leading(base.active, 1)[0]
    rows = preference_rows(base.loaded, asked.data, room, base.config.text.context - room)
    texts = [t for pair in pair_tokens(base.loaded, rows) for t in pair]
    found = completion_nats(base.loaded, texts, base.active)
    logp_n2, size_n2 = -found[:, 0].reshape(-1, 2), found[:, 1].reshape(-1, 2)
    out = {"preferred": wins("preferred", *(logp_n2 / size_n2).T, seed=seed)}
    if asked.judged is not None:
        out["win_rate"] = win_rate(asked, asked.judged)
    how = base.attached.config.prefer if base.attached else None
    if how is None or not how.referred:
        return out
    ref_n2 = -completion_nats(base.plain.loaded, texts)[:, 0].reshape(-1, 2)
    gain_n2 = how.beta * (logp_n2 - ref_n2) / (size_n2 if how.loss == "ipo" else 1.0)
    return {
        "reward_accuracy": wins("reward_accuracy", *gain_n2.T, seed=seed),
        "margin": margin(*gain_n2.T, seed=seed),
    } | out


def reward_scores(asked: Asked) -> dict[str, Score]:
    """accuracy: the share of pairs whose chosen answer has the larger reward; margin: by how much, on average."""
    base, seed = asked.base, asked.seed
    room = base.config.text.context - base.loaded.model.leading(base.active, 1)[0]
    rows = preference_rows(base.loaded, asked.data, room, base.config.text.context - room)
    found = base.reward([(r["prompt"], r[side]) for r in rows for side in SIDES])
    chosen, rejected = np.array(found).reshape(-1, 2).T
    return {
        "accuracy": wins("accuracy", chosen, rejected, seed=seed),
        "margin": margin(chosen, rejected, seed=seed),
    }
