"""A base as lm-evaluation-harness sees one: how likely a continuation, how likely a text, what is written. Import it only where the harness is.

Texts become tokens by the harness's own rules (`TemplateLM`), with our tokenizer, so that numbers agree with those of its Hugging Face
adapter on the exported base. Two things differ: the name of a special token in a text stays text, and there is no chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from onebase.engine.decoder import generate
from onebase.engine.request import check_prompts
from onebase.engine.sampler import Sampling
from onebase.engine.scoring import score_ends
from onebase.errors import DataError, UserError
from onebase.methods.bound import Bound

NEW_TOKENS = 256
"""Tokens of an answer where a task says nothing; the harness's default."""
KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


class HarnessLM(TemplateLM):
    """A base, with its adapter if it has one, behind the interface of the harness. `cut` counts contexts that lost their beginning.

    Raises UserError for a base that predicts no next token, or has no token that begins or ends a text.
    """

    def __init__(self, base: Bound) -> None:
        super().__init__()
        self.base = base
        self.cut = 0
        tok = base.tokenizer
        prefix = tok.bos if tok.bos is not None else tok.eos
        if prefix is None:
            raise UserError(
                "the vocabulary of this base has no token that begins or ends a text",
                "use a base that has one",
            )
        self._prefix = prefix
        check_prompts(base.loaded, [[prefix]], routing=base.routing)
        self.max_length = base.config.text.context - base.loaded.model.virtual_counts(base.routing, 1)[0]

    @property
    def eot_token_id(self) -> int:
        eos = self.base.tokenizer.eos
        return self._prefix if eos is None else eos

    @property
    def prefix_token_id(self) -> int:
        """Stands before what has nothing before it."""
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        return self.base.tokenizer.digest

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self.base.tokenizer.encode(string, bos=add_special_tokens is not False)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log p(continuation | context) in nats, whether greedy decoding gives it) of each request. Raises DataError for a continuation
        without a token, or with more than the context."""
        if any(not req.args[1] for req in requests):
            raise DataError("a continuation has no text", "check the answers in the task file and its data")
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs = []
        for _, start, end in requests:
            if not end:
                raise DataError(
                    "a continuation has no token of its own",
                    "check the answers in the task file and its data",
                )
            if len(end) > self.max_length:
                raise DataError(
                    f"a continuation has {len(end)} tokens, the base reads {self.max_length}", "shorten it"
                )
            room = self.max_length + 1 - len(end)  # the last token is predicted and not read
            self.cut += len(start) > room
            pairs.append((start[-room:], end))
        return score_ends(self.base.loaded, pairs, self.base.routing)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """log p(text) in nats of each request, in windows of the context where it is longer."""
        owner, windows = [], []
        for n, req in enumerate(requests):
            ids = self.tok_encode(req.args[0])
            for window in get_rolling_token_windows(ids, self._prefix, self.max_length, 1):
                start, end = make_disjoint_window(window)
                owner.append(n)
                windows.append((None, start, end))
        out = [0.0] * len(requests)
        for n, (logp, _) in zip(owner, self._loglikelihood_tokens(windows), strict=True):
            out[n] += logp
        return out

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """What the base writes after each context, greedily unless the task samples; contexts lose their beginning where they leave no
        room for the answer. Raises DataError for an option that our decoding does not have."""
        prompts, sampling = [], []
        for n, req in enumerate(requests):
            context, options = req.args
            asked = normalize_gen_kwargs(options, NEW_TOKENS)
            if unknown := sorted(k for k in asked.keys() - KNOWN if asked[k] is not None):
                raise DataError(
                    f"generation_kwargs of the task: {', '.join(unknown)}",
                    f"accepted: {', '.join(sorted(KNOWN))}",
                )
            room = self.max_length - asked["max_gen_toks"]
            if room < 1:
                raise DataError(
                    f"the task wants {asked['max_gen_toks']} new tokens, the context of this base is {self.max_length}",
                    "set generation_kwargs: max_gen_toks in the task file",
                )
            ids = self.tok_encode(context) or [self._prefix]
            self.cut += len(ids) > room
            prompts.append(ids[-room:])
            until = asked.get("until") or []
            sampling.append(
                Sampling(
                    max_tokens=asked["max_gen_toks"],
                    temperature=asked.get("temperature", 1.0) if asked.get("do_sample") else 0.0,
                    top_p=asked.get("top_p") or 1.0,
                    top_k=asked.get("top_k") or 0,
                    seed=n,
                    stop=tuple(s for s in ([until] if isinstance(until, str) else until) if s),
                )
            )
        return [c.text for c in generate(self.base.loaded, prompts, sampling, self.base.routing)]
