"""A base as a model of lm-evaluation-harness: loglikelihood, rolling loglikelihood and generation. Importing it requires the harness.

Texts are tokenised by the harness's own rules (`TemplateLM`), with our tokenizer, so that numbers agree with those of its Hugging Face
adapter on the exported base. Two things differ: names of special tokens in a text are plain text, and there is no chat template.
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
"""Default maximum of new tokens; the harness's own."""
KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


class HarnessLM(TemplateLM):
    """A base, with its adapter if any, behind the interface of the harness. `cut` counts contexts that were truncated on the left.

    Raises UserError for a base that predicts no next token, or has neither BOS nor EOS token.
    """

    def __init__(self, base: Bound) -> None:
        super().__init__()
        self.base = base
        self.cut = 0
        tok = base.tokenizer
        prefix = tok.bos if tok.bos is not None else tok.eos
        if prefix is None:
            raise UserError(
                "the vocabulary of this base has no BOS or EOS token",
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
        """The token before an empty context."""
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        return self.base.tokenizer.digest

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self.base.tokenizer.encode(string, bos=add_special_tokens is not False)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log p(continuation | context) in nats, whether it equals greedy decoding) of each request. Raises DataError for a continuation that
        is empty or longer than the context."""
        if any(not req.args[1] for req in requests):
            raise DataError("a continuation has no text", "check the answers in the task file and its data")
        results: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return results

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
            limit = self.max_length + 1 - len(end)  # the last token is predicted but not read
            self.cut += len(start) > limit
            pairs.append((start[-limit:], end))
        return score_ends(self.base.loaded, pairs, self.base.routing)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """log p(text) in nats of each request; a text longer than the context is scored in windows."""
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
        """Generate after each context, greedily unless the task samples. Contexts are truncated on the left to fit the new tokens. Raises
        DataError for an unknown generation option."""
        prompts, sampling = [], []
        for n, req in enumerate(requests):
            context, options = req.args
            kwargs = normalize_gen_kwargs(options, NEW_TOKENS)
            if unknown := sorted(k for k in kwargs.keys() - KNOWN if kwargs[k] is not None):
                raise DataError(
                    f"unknown generation_kwargs of the task: {', '.join(unknown)}",
                    f"accepted: {', '.join(sorted(KNOWN))}",
                )
            limit = self.max_length - kwargs["max_gen_toks"]
            if limit < 1:
                raise DataError(
                    f"the task asks for {kwargs['max_gen_toks']} new tokens, the context of this base is {self.max_length}",
                    "set generation_kwargs: max_gen_toks in the task file",
                )
            ids = self.tok_encode(context) or [self._prefix]
            self.cut += len(ids) > limit
            prompts.append(ids[-limit:])
            until = kwargs.get("until") or []
            sampling.append(
                Sampling(
                    max_tokens=kwargs["max_gen_toks"],
                    temperature=kwargs.get("temperature", 1.0) if kwargs.get("do_sample") else 0.0,
                    top_p=kwargs.get("top_p") or 1.0,
                    top_k=kwargs.get("top_k") or 0,
                    seed=n,
                    stop=tuple(s for s in ([until] if isinstance(until, str) else until) if s),
                )
            )
        return [c.text for c in generate(self.base.loaded, prompts, sampling, self.base.routing)]
