"""Scores of what a base writes, by a reward. P prompts, S samples of each."""

import numpy as np

from onebase.api.adapting.rollouts import check_questions, questions
from onebase.api.rewards import checked, opened
from onebase.api.scoring.asked import Asked
from onebase.data import read_rows
from onebase.data.bad_rows import places_of
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.generate.engine import generate
from onebase.generate.sampler import Sampling


def reward_scores(asked: Asked) -> dict[str, Score]:
    """reward, the mean over greedy completions, and success, the share with at least `success`; where samples are asked for, sampled_reward
    and sampled_success over completions at temperature 1, the mean of a prompt's samples being one example of the interval. Rows have a
    prompt and what the reward reads. Raises UserError, BadRows for rows that cannot be asked."""
    base, cfg, seed = asked.base, asked.reinforce, asked.seed
    loaded, active = base.loaded, base.active
    rows = read_rows(asked.data, checked(cfg.reward).columns)
    context = base.config.text.context - loaded.model.leading(active, 1)[0]
    check_questions(loaded, rows, cfg.reward, cfg.max_tokens, context)
    each = questions(loaded, rows, places_of(rows))
    # A reward model is of the plain base, whatever stands in the place of its weights.
    with opened(cfg.reward, base.plain.loaded) as reward:

        def worth(copies: int, samplings: list[Sampling]) -> np.ndarray:
            """[P, S] of so many completions of each prompt."""
            whole = [q for q in each for _ in range(copies)]
            found = generate(loaded, [q.tokens.ids.tolist() for q in whole], samplings, active)
            said = [q.answer(c.text) for q, c in zip(whole, found, strict=True)]
            return np.asarray(reward.scores(said), np.float64).reshape(len(each), copies)

        made = {"": worth(1, [Sampling(max_tokens=cfg.max_tokens, stop=cfg.stop)] * len(each))}
        if cfg.samples:
            seeds = np.random.SeedSequence(seed).generate_state(len(each) * cfg.samples)
            made["sampled_"] = worth(
                cfg.samples,
                [
                    Sampling(max_tokens=cfg.max_tokens, stop=cfg.stop, temperature=1.0, seed=int(s))
                    for s in seeds
                ],
            )
    scores = []
    for name, worth_PS in made.items():
        scores += [
            mean_score(f"{name}reward", worth_PS.mean(1), seed=seed),
            mean_score(f"{name}success", (worth_PS >= cfg.success).mean(1), seed=seed),
        ]
    return {s.name: s for s in scores}
