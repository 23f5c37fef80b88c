"""Scores of what a base writes, by a reward."""

from onebase.api.adapting.rollouts import check_questions, questions
from onebase.api.rewards import checked, opened
from onebase.api.scoring.asked import Asked
from onebase.data import read_rows
from onebase.data.bad_rows import places_of
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.generate.engine import generate
from onebase.generate.sampler import Sampling


def reward_scores(asked: Asked) -> dict[str, Score]:
    """reward, the mean over greedy completions, and success, the share with at least `reinforce.success`. Rows have a prompt and what the
    reward reads. Raises UserError, BadRows for rows that cannot be asked."""
    base, cfg, seed = asked.base, asked.reinforce, asked.seed
    loaded, active = base.loaded, base.active
    rows = read_rows(asked.data, checked(cfg.reward).columns)
    context = base.config.text.context - loaded.model.leading(active, 1)[0]
    check_questions(loaded, rows, cfg, context)
    each = questions(loaded, rows, places_of(rows))
    sampling = Sampling(max_tokens=cfg.max_tokens, stop=cfg.stop)
    found = generate(loaded, [q.tokens.ids.tolist() for q in each], sampling, active)
    # A reward model is of the plain base, whatever stands in the place of its weights.
    with opened(cfg.reward, base.plain.loaded) as reward:
        worth = reward.scores([q.answer(c.text) for q, c in zip(each, found, strict=True)])
    return {
        "reward": mean_score("reward", worth, seed=seed),
        "success": mean_score("success", [float(x >= cfg.success) for x in worth], seed=seed),
    }
