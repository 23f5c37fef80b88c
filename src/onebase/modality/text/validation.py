"""Checks of a single tokenised sample; each problem has a code in the token ledger."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer


def name_of(item: Tokens, number: int) -> str:
    """The name of a sample in messages."""
    return f"sample {item.id or number}" + (f" of {item.source}" if item.source else "")


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that end a generation, EOS among them."""
    return tokenizer.stop_ids | ({tokenizer.eos} if tokenizer.eos is not None else frozenset())


def stretches(item: Tokens) -> list[tuple[int, int]]:
    """(start, stop) of each run of supervised tokens."""
    loss = item.loss
    edges = (np.flatnonzero(loss[1:] != loss[:-1]) + 1).tolist()
    edges = [0, *edges] if len(loss) and loss[0] else edges
    edges += [len(loss)] * (len(edges) % 2)
    return list(zip(edges[::2], edges[1::2], strict=True))


def problems(item: Tokens, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """(code, problem) of a sample, each code once.

    Every supervised span must end in a stop token (`<|eos|>` or `<|end|>` in our own; white space may follow it), else the model
    never learns to stop; or before media that are to be generated, which it announces.
    """
    tok, roles, bos = tokenizer, tokenizer.roles, tokenizer.bos
    stop = stop_ids(tok)
    if not item.loss.any():
        yield "all-masked", f"no token is supervised, all {len(item)} are masked"
    if _doubled(item, tok, stop):
        yield "doubled-bos", f"starts with {roles.bos} twice"
    # Where a chat template decides how a conversation begins, samples may begin differently. And some models have one token
    # for BOS and EOS, which is supervised as EOS.
    if roles.chat_framed and bos is not None and not (len(item) and item.ids[0] == bos):
        yield "no-bos", f"does not start with {roles.bos}"
    if bos is not None and bos not in stop and bool(item.loss[item.ids == bos].any()):
        yield "bos-learnt", f"{roles.bos} is supervised"
    yield from _endless(item, tok, stop)


def _doubled(item: Tokens, tok: Tokenizer, stop: frozenset[int]) -> bool:
    """Whether BOS occurs twice at the start, with nothing or white space between."""
    at = np.flatnonzero(item.ids == tok.bos) if tok.bos is not None else np.zeros(0, np.intp)
    if len(at) < 2 or at[0] != 0:
        return False
    if at[1] == 1:
        return True
    # A BOS that is also a stop token may follow an empty text.
    return tok.bos not in stop and not _has_text(tok, item.ids[1 : at[1]].tolist())


def _endless(item: Tokens, tok: Tokenizer, stop: frozenset[int]) -> Iterator[tuple[str, str]]:
    made = {m.start for m in item.media if m.noise}
    for a, b in stretches(item):
        if b in made:
            continue
        stretch = item.ids[a:b].tolist()
        last = next((i for i in range(len(stretch) - 1, -1, -1) if stretch[i] in stop), None)
        if last is not None and not _has_text(tok, stretch[last + 1 :]):
            continue
        follows = int(item.ids[b]) if b < len(item) else None
        if follows in stop and follows == tok.pad:
            name = tok.roles.pad
            yield (
                "pad-is-eos",
                f"{name} ends the answer, but is masked because it is also the padding token",
            )
            return
        names = " or ".join(dict.fromkeys([n for n in (tok.roles.eos, *tok.roles.stop) if n])) or "any token"
        yield "no-eos", f"a supervised span does not end in {names}, so the model would not learn to stop"
        return


def _has_text(tok: Tokenizer, ids: list[int]) -> bool:
    """Whether the ids decode to more than white space."""
    return bool(ids) and bool(tok.decode(ids, skip_special=False, start=False).strip())
