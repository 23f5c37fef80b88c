"""What can be wrong with one tokenised sample by itself, each fault with its code in the token ledger."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onebase.codec.text.sample import Tokens
from onebase.codec.text.tokenizer import Tokenizer


def name_of(item: Tokens, number: int) -> str:
    """How a sample is called in messages."""
    return f"sample {item.id or number}" + (f" of {item.source}" if item.source else "")


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that end a generation, EOS among them."""
    return tokenizer.stop_ids | ({tokenizer.eos} if tokenizer.eos is not None else frozenset())


def stretches(item: Tokens) -> list[tuple[int, int]]:
    """(start, stop) of each run of learnt tokens."""
    loss = item.loss
    edges = (np.flatnonzero(loss[1:] != loss[:-1]) + 1).tolist()
    edges = [0, *edges] if len(loss) and loss[0] else edges
    edges += [len(loss)] * (len(edges) % 2)
    return list(zip(edges[::2], edges[1::2], strict=True))


def problems(item: Tokens, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """(code, what is wrong), each code once.

    Every learnt stretch must end in a stop token (`<|eos|>` or `<|end|>` in our own; white space may follow it), else the model
    never learns to stop.
    """
    tok, roles, bos = tokenizer, tokenizer.roles, tokenizer.bos
    stop = stop_ids(tok)
    if not item.loss.any():
        yield "all-masked", f"no token is learnt, all {len(item)} are masked"
    if _doubled(item, tok, stop):
        yield "doubled-bos", f"starts with {roles.bos} twice"
    # Where a chat template says what begins a conversation, not every sample begins alike; and some models have one token
    # for both ends of a text, which is learnt as an end.
    if roles.chat_framed and bos is not None and not (len(item) and item.ids[0] == bos):
        yield "no-bos", f"does not start with {roles.bos}"
    if bos is not None and bos not in stop and bool(item.loss[item.ids == bos].any()):
        yield "bos-learnt", f"{roles.bos} is marked to be learnt"
    yield from _endless(item, tok, stop)


def _doubled(item: Tokens, tok: Tokenizer, stop: frozenset[int]) -> bool:
    """Does BOS stand twice at the start, with nothing or white space between?"""
    at = np.flatnonzero(item.ids == tok.bos) if tok.bos is not None else np.zeros(0, np.intp)
    if len(at) < 2 or at[0] != 0:
        return False
    if at[1] == 1:
        return True
    # A token that also ends texts may follow an empty one.
    return tok.bos not in stop and not _said(tok, item.ids[1 : at[1]].tolist())


def _endless(item: Tokens, tok: Tokenizer, stop: frozenset[int]) -> Iterator[tuple[str, str]]:
    for a, b in stretches(item):
        stretch = item.ids[a:b].tolist()
        last = next((i for i in range(len(stretch) - 1, -1, -1) if stretch[i] in stop), None)
        if last is not None and not _said(tok, stretch[last + 1 :]):
            continue
        follows = int(item.ids[b]) if b < len(item) else None
        if follows in stop and follows == tok.pad:
            name = tok.roles.pad
            yield (
                "pad-is-eos",
                f"{name} ends the answer and is the padding too, and is masked: it is not learnt",
            )
            return
        names = " or ".join(dict.fromkeys([n for n in (tok.roles.eos, *tok.roles.stop) if n])) or "any token"
        yield "no-eos", f"a learnt stretch does not end in {names}, so stopping is not learnt"
        return


def _said(tok: Tokenizer, ids: list[int]) -> bool:
    """Is there more than white space?"""
    return bool(ids) and bool(tok.decode(ids, skip_special=False, start=False).strip())
