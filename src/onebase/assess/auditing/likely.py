"""How likely a base finds texts: a decoder token by token, an encoder each token given all others; and which bases can be asked."""

from collections.abc import Sequence

import numpy as np

from onebase.codec.text.tokenizer import Tokenizer
from onebase.engine.scoring import score
from onebase.errors import DataError, UserError
from onebase.evaluation.audits import Read
from onebase.evaluation.bootstrap import Array
from onebase.evaluation.masked import mask_id, masked_score
from onebase.methods.bound import Bound


def reads(base: Bound) -> str:
    """How this base is asked, in words. Raises UserError for one that cannot be, with the reason."""
    cfg = base.config
    if "text" not in cfg.codecs or cfg.link("memory") is not None:
        raise UserError(
            f"an audit asks how likely a text is; this base predicts none by itself (it reads {', '.join(sorted(cfg.codecs))})",
            "audit a decoder, or an encoder with its masked head",
        )
    if not cfg.text.head:
        raise UserError(
            "an audit asks how likely a text is; this base gives hidden states and predicts no tokens",
            "audit a decoder, or an encoder that kept its masked head (not a sentence encoder)",
        )
    if is_decoder(base):
        name = {i: n for n, i in base.tokenizer.specials.items()}[_front(base.tokenizer)[-1]]
        return f"decoder: log-probability of each token given those before it, after {name}"
    name = {i: n for n, i in base.tokenizer.specials.items()}[mask_id(base.tokenizer)]
    return f"encoder: log-probability of each token hidden by {name}, given all others (1910.14659)"


def is_decoder(base: Bound) -> bool:
    return base.loaded.model.trunk.cfg.direction == "causal"


def read_texts(base: Bound, texts: Sequence[str], places: Sequence[str]) -> list[Read]:
    """Tokens and log-probabilities of whole texts; places: what to call each in an error. Raises DataError for those beyond the context."""
    tok = base.tokenizer
    each = tok.encode_batch(list(texts))
    if not is_decoder(base):
        _fit(base, [tok.framed(ids) for ids in each], places)
        found = masked_score(base.loaded, each, base.routing)
        return [Read(ids, logp) for ids, logp in zip(each, found, strict=True)]
    front = _front(tok)
    whole = [[*front, *ids] for ids in each]
    _fit(base, whole, places)
    # What begins a text has no log-probability, all of the text has one.
    return [
        Read(ids, np.asarray(logp, np.float64)[len(front) - 1 :])
        for ids, logp in zip(each, score(base.loaded, whole, base.routing), strict=True)
    ]


def read_answers(base: Bound, asked: Sequence[tuple[str, str]], places: Sequence[str]) -> Array:
    """log P(answer | prompt) in nats for each (prompt, answer), [N]; for decoders."""
    tok = base.tokenizer
    front = _front(tok)
    heads = tok.encode_batch([p for p, _ in asked])
    tails = tok.encode_batch([a for _, a in asked], follows="text")
    whole = [[*front, *h, *t] for h, t in zip(heads, tails, strict=True)]
    _fit(base, whole, places)
    found = score(base.loaded, whole, base.routing)
    return np.array([np.asarray(x, np.float64)[-len(t) :].sum() for t, x in zip(tails, found, strict=True)])


def _front(tok: Tokenizer) -> list[int]:
    """What stands before a text: what begins one to this base, else the token that ends the one before."""
    if front := tok.begun([]):
        return front
    last = tok.bos if tok.bos is not None else tok.eos
    if last is None:
        raise UserError(
            "the vocabulary of this base has no token that begins or ends a text, so no first word has a probability",
            "use a base that has one",
        )
    return [last]


def _fit(base: Bound, whole: Sequence[Sequence[int]], places: Sequence[str]) -> None:
    """Raise DataError naming the texts that have more tokens than the base reads."""
    room = base.config.text.context - base.loaded.model.virtual_counts(base.routing, 1)[0]
    long = sorted({p for p, ids in zip(places, whole, strict=True) if len(ids) > room})
    if long:
        more = f" and {len(long) - 5} more" if len(long) > 5 else ""
        raise DataError(
            f"{', '.join(long[:5])}{more}: longer than the {room} tokens that this base reads",
            "leave these rows out, and name the subset",
        )
