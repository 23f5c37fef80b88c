"""Scores a base's completions by a reward. P prompts, S samples of each."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onebase.data import read_rows
from onebase.data.labelled import Data
from onebase.draws import Draws
from onebase.engine.decoder import generate
from onebase.engine.sampler import Sampling
from onebase.errors import UserError
from onebase.evaluation.predictions import Judged
from onebase.methods.bound import Bound
from onebase.rewards import Reward, checked, opened
from onebase.tasks.base import JudgeConfig, ScoreRequest
from onebase.tasks.preferences import prompt_problem
from onebase.tasks.rollouts import RolloutPrompt, prompt_samples, questions
from onebase.tasks.rows import reader_on


def rewarded(request: ScoreRequest) -> Judged:
    """Rewards of greedy completions, and of `samples` completions per prompt at temperature 1 if set. Rows have a prompt and the reward's
    columns. Raises UserError, BadRows for rows that cannot be used."""
    base, cfg, seed = request.base, request.judge or JudgeConfig(), request.seed
    each = _questions(base, request.data, cfg)
    # A reward model belongs to the plain base, even where an adapter replaces its weights.
    with opened(cfg.reward, base.plain.loaded) as reward:
        greedy_PS = _worth(base, each, cfg, reward, 0, seed)
        sampled_PS = _worth(base, each, cfg, reward, cfg.samples, seed) if cfg.samples else None
    return Judged(greedy_PS, sampled_PS, cfg.success)


def wins_of(request: ScoreRequest, cfg: JudgeConfig) -> np.ndarray:
    """How often the reward prefers the adapter's completion to the plain base's for the same prompt, [P] from 0 to 1, ties counting half:
    greedy completions, or with `samples` each of one side against each of the other. Raises UserError without an adapter."""
    base = request.base
    if base.routing is None:
        raise UserError(
            "a win rate compares an adapter with the base without it", "give an adapter, or remove the reward"
        )
    each = _questions(base, request.data, cfg)
    with opened(cfg.reward, base.plain.loaded) as reward:
        mine_PS, plain_PS = (
            _worth(b, each, cfg, reward, cfg.samples, request.seed) for b in (base, base.plain)
        )
    over_PSS = mine_PS[:, :, None] - plain_PS[:, None, :]
    won_PSS = (over_PSS > 0) + 0.5 * (over_PSS == 0)
    return np.asarray(won_PSS.mean((1, 2)))


def _questions(base: Bound, data: Data, cfg: JudgeConfig) -> list[RolloutPrompt]:
    make = prompt_samples(reader_on(base), cfg.reward, cfg.max_tokens)
    required = ("prompt", *checked(cfg.reward).columns)
    return questions(read_rows(data, required, check=prompt_problem, make=make))


def _worth(
    base: Bound, each: Sequence[RolloutPrompt], cfg: JudgeConfig, reward: Reward, samples: int, seed: int
) -> np.ndarray:
    """Rewards [P, S] of `samples` completions of each prompt at temperature 1; without samples of the greedy one alone, [P, 1]."""
    repeated = [q for q in each for _ in range(max(1, samples))]
    greedy = Sampling(max_tokens=cfg.max_tokens, stop=cfg.stop)
    sampling = [greedy] * len(repeated)
    if samples:
        seeds = Draws(seed, "completions").seeds(len(repeated))
        sampling = [replace(greedy, temperature=1.0, seed=s) for s in seeds]
    completions = generate(base.loaded, [q.tokens.ids.tolist() for q in repeated], sampling, base.routing)
    answers = [q.answer(c.text) for q, c in zip(repeated, completions, strict=True)]
    return np.asarray(reward.scores(answers), np.float64).reshape(len(each), -1)
