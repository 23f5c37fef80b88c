"""What a base writes, judged by a reward. P prompts, S samples of each."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onebase.data import read_rows
from onebase.data.labelled import Data
from onebase.draws import Draws
from onebase.engine.decoder import generate
from onebase.engine.sampler import Sampling
from onebase.errors import UserError
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.tasks.base import JudgeConfig, ScoreRequest
from onebase.tasks.bound import Bound
from onebase.tasks.preferences import prompt_flaw
from onebase.tasks.rewards import Reward, checked, opened
from onebase.tasks.rollouts import Question, prompt_samples, questions
from onebase.tasks.rows import reader_on


def reward_scores(request: ScoreRequest) -> dict[str, Score]:
    """reward, the mean over greedy completions, and success, the share with at least `success`; where samples are asked for, sampled_reward
    and sampled_success over completions at temperature 1, the mean of a prompt's samples being one example of the interval. Rows have a
    prompt and what the reward reads. Raises UserError, BadRows for rows that cannot be request."""
    base, cfg, seed = request.base, request.judge or JudgeConfig(), request.seed
    each = _questions(base, request.data, cfg)
    # A reward model is of the plain base, whatever stands in the place of its weights.
    with opened(cfg.reward, base.plain.loaded) as reward:
        made = {"": _worth(base, each, cfg, reward, 0, seed)}
        if cfg.samples:
            made["sampled_"] = _worth(base, each, cfg, reward, cfg.samples, seed)
    scores = []
    for name, worth_PS in made.items():
        scores += [
            mean_score(f"{name}reward", worth_PS.mean(1), seed=seed),
            mean_score(f"{name}success", (worth_PS >= cfg.success).mean(1), seed=seed),
        ]
    return {s.name: s for s in scores}


def win_rate(request: ScoreRequest, cfg: JudgeConfig) -> Score:
    """How often the reward finds what is written with the adapter better than what the plain base writes to the same prompt, 0 to 1, ties
    counting half: greedy completions, or with `samples` each of one side against each of the other. Raises UserError without an adapter."""
    base = request.base
    if base.active is None:
        raise UserError(
            "a win rate is that of an adapter against the base without it",
            "give an adapter, or leave out the reward",
        )
    each = _questions(base, request.data, cfg)
    with opened(cfg.reward, base.plain.loaded) as reward:
        mine_PS, plain_PS = (
            _worth(b, each, cfg, reward, cfg.samples, request.seed) for b in (base, base.plain)
        )
    over_PSS = mine_PS[:, :, None] - plain_PS[:, None, :]
    won_PSS = (over_PSS > 0) + 0.5 * (over_PSS == 0)
    return mean_score("win_rate", won_PSS.mean((1, 2)), seed=request.seed)


def _questions(base: Bound, data: Data, cfg: JudgeConfig) -> list[Question]:
    make = prompt_samples(reader_on(base), cfg.reward, cfg.max_tokens)
    required = ("prompt", *checked(cfg.reward).columns)
    return questions(read_rows(data, required, check=prompt_flaw, make=make))


def _worth(
    base: Bound, each: Sequence[Question], cfg: JudgeConfig, reward: Reward, samples: int, seed: int
) -> np.ndarray:
    """Rewards [P, S] of so many completions of each prompt at temperature 1; of the greedy one alone, [P, 1], without samples."""
    whole = [q for q in each for _ in range(max(1, samples))]
    greedy = Sampling(max_tokens=cfg.max_tokens, stop=cfg.stop)
    how = [greedy] * len(whole)
    if samples:
        seeds = Draws(seed, "completions").seeds(len(whole))
        how = [replace(greedy, temperature=1.0, seed=s) for s in seeds]
    found = generate(base.loaded, [q.tokens.ids.tolist() for q in whole], how, base.active)
    said = [q.answer(c.text) for q, c in zip(whole, found, strict=True)]
    return np.asarray(reward.scores(said), np.float64).reshape(len(each), -1)
