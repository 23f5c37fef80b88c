"""Log-probabilities of texts for audits: of a decoder token by token, of an encoder each token given all others."""

from collections.abc import Sequence

import numpy as np

from onebase.engine.scoring import score
from onebase.errors import DataError, UserError
from onebase.evaluation.audits import ScoredText
from onebase.evaluation.bootstrap import Array
from onebase.evaluation.masked import mask_id, masked_score
from onebase.methods.bound import Bound
from onebase.modality.text.tokenizer import Tokenizer


def scoring_rule(base: Bound) -> str:
    """How this base scores texts, in words. Raises UserError with the reason for a base that cannot."""
    cfg = base.config
    if "text" not in cfg.codecs or cfg.link("memory") is not None:
        raise UserError(
            f"an audit needs the probability of a text; this base does not predict text alone (it reads {', '.join(sorted(cfg.codecs))})",
            "audit a decoder, or an encoder with its masked language model head",
        )
    if not cfg.text.head:
        raise UserError(
            "an audit needs the probability of a text; this base has no language model head",
            "audit a decoder, or an encoder with its masked language model head (not a sentence encoder)",
        )
    if is_decoder(base):
        name = {i: n for n, i in base.tokenizer.specials.items()}[_front(base.tokenizer)[-1]]
        return f"decoder: log-probability of each token given those before it, after {name}"
    name = {i: n for n, i in base.tokenizer.specials.items()}[mask_id(base.tokenizer)]
    return f"encoder: log-probability of each token hidden by {name}, given all others (1910.14659)"


def is_decoder(base: Bound) -> bool:
    return base.loaded.model.trunk.cfg.direction == "causal"


def read_texts(base: Bound, texts: Sequence[str], places: Sequence[str]) -> list[ScoredText]:
    """Tokens and log-probabilities of whole texts; places: their names in errors. Raises DataError for texts beyond the context."""
    tok = base.tokenizer
    each = tok.encode_batch(list(texts))
    if not is_decoder(base):
        _fit(base, [tok.framed(ids) for ids in each], places)
        scored = masked_score(base.loaded, each, base.routing)
        return [ScoredText(ids, logp) for ids, logp in zip(each, scored, strict=True)]
    front = _front(tok)
    whole = [[*front, *ids] for ids in each]
    _fit(base, whole, places)
    # The tokens in front have no log-probability; all tokens of the text have one.
    return [
        ScoredText(ids, np.asarray(logp, np.float64)[len(front) - 1 :])
        for ids, logp in zip(each, score(base.loaded, whole, base.routing), strict=True)
    ]


def read_answers(base: Bound, pairs: Sequence[tuple[str, str]], places: Sequence[str]) -> Array:
    """log P(answer | prompt) in nats for each (prompt, answer), [N]; for decoders."""
    tok = base.tokenizer
    front = _front(tok)
    heads = tok.encode_batch([p for p, _ in pairs])
    tails = tok.encode_batch([a for _, a in pairs], follows="text")
    whole = [[*front, *h, *t] for h, t in zip(heads, tails, strict=True)]
    _fit(base, whole, places)
    logp = score(base.loaded, whole, base.routing)
    return np.array([np.asarray(x, np.float64)[-len(t) :].sum() for t, x in zip(tails, logp, strict=True)])


def _front(tok: Tokenizer) -> list[int]:
    """Tokens before a text: the base's own prefix, else the BOS or EOS token."""
    if front := tok.begun([]):
        return front
    last = tok.bos if tok.bos is not None else tok.eos
    if last is None:
        raise UserError(
            "the vocabulary of this base has no BOS or EOS token, so the first word has no probability",
            "use a base that has one",
        )
    return [last]


def _fit(base: Bound, whole: Sequence[Sequence[int]], places: Sequence[str]) -> None:
    """Raise DataError naming the texts with more tokens than the base's context."""
    limit = base.config.text.context - base.loaded.model.virtual_counts(base.routing, 1)[0]
    long = sorted({p for p, ids in zip(places, whole, strict=True) if len(ids) > limit})
    if long:
        more = f" and {len(long) - 5} more" if len(long) > 5 else ""
        raise DataError(
            f"{', '.join(long[:5])}{more}: longer than the {limit} tokens that this base reads",
            "leave these rows out, and name the subset",
        )
