"""Texts under a base: as tokens, as pooled features, as vectors."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onebase.base.folder import FeatureMemo, LoadedBase
from onebase.base.head import Read
from onebase.codec.text.codec import Known
from onebase.codec.text.long import Long, long_texts, parts_of, picked
from onebase.codec.text.pairs import cut_pair, pair_frame
from onebase.codec.text.pooling import EmbeddingConfig, pooled
from onebase.codec.text.sample import Tokens, chat_sample, completion_sample
from onebase.codec.text.tokenizer import Tokenizer
from onebase.engine.scoring import batch_tokens, batches
from onebase.errors import ArtifactError, DataError, UserError
from onebase.model.proj import AdapterRouting
from onebase.objective.pooled import How, mean_of_windows, narrowed, pool, text_batch

log = logging.getLogger(__name__)


def text_tokens(
    base: LoadedBase,
    texts: Sequence[str],
    limit: int | None = None,
    before: int = 0,
    long: Long = "refuse",
) -> list[Tokens]:
    """One Tokens a text, framed as the base reads a whole text, ids by number; long: what is done with one beyond the limit (the context).

    before: places of the context that an adapter takes.
    """
    tok = base.codec.tokenizer
    room = room_of(base, limit, before)
    read = [long_tokens(tok, ids, i, room, long) for i, ids in enumerate(tok.encode_batch(list(texts)))]
    refuse_long(base, read, limit, before)
    return read


def room_of(base: LoadedBase, limit: int | None, before: int) -> int:
    """Tokens that a text may have: the limit, or the context less what an adapter takes before the text."""
    context = base.model.cfg.text.context - before
    return min(limit or context, context) if before else limit or context


def long_tokens(tok: Tokenizer, ids: Sequence[int], number: int, limit: int, long: Long) -> Tokens:
    """A text of these tokens, framed; one beyond the limit whole where it is to be refused, else as `long` says."""
    room = limit - len(tok.framed([]))
    if len(ids) <= room or long == "refuse" or room < 1:
        return given_tokens(tok.framed(ids), number)
    parts = parts_of(len(ids), room, long)
    return windowed([tok.framed(picked(ids, p)) for p in parts], number, sum(p.left_out for p in parts))


def windowed(windows: Sequence[Sequence[int]], number: int, left_out: int) -> Tokens:
    """A text by the tokens of its windows, of which it may have one."""
    sizes = tuple(map(len, windows)) if len(windows) > 1 else ()
    return replace(given_tokens(np.concatenate(windows), number), windows=sizes, left_out=left_out)


def refuse_long(base: LoadedBase, texts: Sequence[Tokens], limit: int | None = None, before: int = 0) -> None:
    """Raise DataError for a text without a token, or longer than the limit (the context, less `before`)."""
    limit = room_of(base, limit, before)
    for i, text in enumerate(texts, 1):
        if text.windows:
            continue
        if not len(text):
            raise DataError(f"row {i} has no token", "give a text that is not empty")
        if len(text) > limit:
            raise DataError(
                f"row {i} has {len(text)} tokens, the limit is {limit}"
                + (f" behind the {before} of the adapter" if before else ""),
                "shorten it (an adapter that cuts long texts, or reads them in windows, is learnt with -o long=head, tail, middle or windows)",
            )


def pair_tokens(
    base: LoadedBase,
    pairs: Sequence[tuple[str, str]],
    limit: int | None = None,
    before: int = 0,
    *,
    cut: bool = False,
    typed: bool = True,
) -> list[Tokens]:
    """One Tokens a pair of texts, framed as the base's tokenizer frames two, ids by number. cut: a pair beyond the limit (the context)
    loses the end of its longer text; else it is refused. typed: the second text is of the second type, where
    the base has types. before: places of the context that an adapter takes. Raises DataError."""
    tok, frame = base.codec.tokenizer, pair_frame(base.codec.tokenizer)
    context = base.model.cfg.text.context - before
    room = min(limit or context, context) - frame.size
    out = []
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    encoded = dict(zip(texts, tok.encode_batch(texts), strict=True))
    for i, pair in enumerate(pairs):
        first, second = encoded[pair[0]], encoded[pair[1]]
        if len(first) + len(second) > room and not cut:
            raise DataError(
                f"pair {i + 1} has {len(first) + len(second) + frame.size} tokens, the limit is {room + frame.size}",
                "shorten its texts",
            )
        a, b = cut_pair(len(first), len(second), max(room, 0))
        ids, types = frame.framed(first[:a], second[:b])
        if not ids:
            raise DataError(f"pair {i + 1} has no token", "give texts that are not empty")
        typed_T = np.asarray(types, np.int32) if typed else None
        left_out = len(first) + len(second) - a - b
        out.append(replace(given_tokens(ids, i), types=typed_T, left_out=left_out))
    return out


def given_tokens(ids: Sequence[int] | NDArray[np.int32], number: int) -> Tokens:
    """Tokens of which nothing is learnt."""
    return Tokens(np.asarray(ids, np.int32), np.zeros(len(ids), np.bool_), str(number), "labelled")


def completion_row(
    base: LoadedBase, row: Mapping[str, Any], name: str = "", known: Known | None = None
) -> Tokens:
    """A row with prompt and completion as tokens, the completion supervised. known: as for `TextCodec.tokens`."""
    return base.codec.tokens(
        completion_sample(row["prompt"], row["completion"], id=name, source="sft"), known
    )


def chat_row(base: LoadedBase, row: Mapping[str, Any], name: str = "", known: Known | None = None) -> Tokens:
    """A row with messages as tokens, the assistant's parts supervised. Raises DataError for what the template does not take."""
    return base.codec.tokens(chat_sample(row["messages"], id=name, source="sft"), known)


def completion_rows(base: LoadedBase, rows: Sequence[Mapping[str, Any]]) -> list[Tokens]:
    """`completion_row` of each, called by number from 1."""
    return [completion_row(base, r, str(i)) for i, r in enumerate(rows, 1)]


def chat_rows(base: LoadedBase, rows: Sequence[Mapping[str, Any]]) -> list[Tokens]:
    """`chat_row` of each, called by number from 1."""
    return [chat_row(base, r, str(i)) for i, r in enumerate(rows, 1)]


def vector_of(base: LoadedBase) -> EmbeddingConfig:
    """How this base makes a vector of length 1 of a text that is read whole: as it was made to, or else by the mean of its states."""
    return replace(base.embedding or EmbeddingConfig(), normalise=True, filled=False)


def pooling_of(base: LoadedBase, read: Read) -> How:
    """What `objective.pooled.pool` takes for what a head reads."""
    return vector_of(base) if read == "vector" else read


def features(base: LoadedBase, texts: Sequence[Tokens], read: Read, routing: AdapterRouting | None) -> Tensor:
    """Pooled hidden states, fp32 [N, P] on the CPU, in the order given. Texts of like length share a batch."""
    return views(base, texts, (read,), routing)[read]


def views(
    base: LoadedBase, texts: Sequence[Tokens], reads: Sequence[Read], routing: AdapterRouting | None
) -> dict[Read, Tensor]:
    """`features` for several things that a head may read, the texts being read once."""
    if base.memory is None or routing is not None or "cls" in reads:  # what is remembered has no first state
        hows = tuple(pooling_of(base, r) for r in reads)
        made = zip(*_read(base, texts, hows, routing), strict=True)
        return {r: torch.stack(x) for r, x in zip(reads, made, strict=True)}
    known, keys = base.memory.texts, [_key(t) for t in texts]
    new = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
    both = _read(base, list(new.values()), ("all", vector_of(base)), None)
    known.update((k, torch.cat(x)) for k, x in zip(new, both, strict=True))
    x_NP = torch.stack([known[k] for k in keys])
    states = x_NP.shape[1] // 4 * 3
    return {r: x_NP[:, states:] if r == "vector" else narrowed(x_NP[:, :states], r) for r in reads}


def _key(text: Tokens) -> bytes:
    return (
        repr(text.windows).encode()
        + text.ids.tobytes()
        + (b"" if text.types is None else b"|" + text.types.tobytes())
    )


@contextmanager
def remembering(base: LoadedBase) -> Iterator[None]:
    """Inside, a text that the base without adapters has read is not read again, and its weights are hashed once. Raises UserError at the
    end when they changed meanwhile."""
    if base.memory is not None:
        raise UserError("this base is remembering already", "leave the first block before the second")
    base.memory = FeatureMemo()
    try:
        yield
        hashed = base.memory.weights
    finally:
        base.memory = None
    if hashed is not None and base.reread() != hashed:
        raise UserError(
            "the base's weights changed while it was remembering texts", "change them outside the block"
        )


@torch.no_grad()
def _read(
    base: LoadedBase, texts: Sequence[Tokens], hows: Sequence[How], routing: AdapterRouting | None
) -> list[tuple[Tensor, ...]]:
    """Pooled hidden states of each text, in each of the ways, fp32 [P] on the CPU."""
    device, windows = base.model.device, [part for t in texts for part in t.parts]
    out: list[tuple[Tensor, ...]] = [()] * len(windows)
    for part in batches([len(t) for t in windows], batch_tokens(device)):
        read = text_batch([windows[j] for j in part])
        cols = read.cols.to(device)
        read = read.to(device)
        h_BTD = base.model.hidden(read.ids_BT, cols, routing=routing, types_BT=read.types_BT).hidden
        made = [pool(h_BTD, cols.doc, how).cpu() for how in hows]
        for j, *rows in zip(part, *made, strict=True):
            out[j] = tuple(rows)
    if len(windows) == len(texts):
        return out
    each = [together(torch.stack(x), texts, how) for x, how in zip(zip(*out, strict=True), hows, strict=True)]
    return list(zip(*each, strict=True))


def together(x_WP: Tensor, texts: Sequence[Tokens], how: How) -> Tensor:
    """What was read of all windows of the texts as what is read of these, [N, P]."""
    text_W = torch.tensor([n for n, t in enumerate(texts) for _ in t.parts])
    return mean_of_windows(x_WP, text_W, how)


@torch.no_grad()
def embeddings(
    base: LoadedBase, texts: Sequence[str], cfg: EmbeddingConfig, routing: AdapterRouting | None
) -> Tensor:
    """Vectors of texts as a base that was made for it gives them, fp32 [N, D] on the CPU; long ones as the config says."""
    read = embedding_tokens(base, texts, cfg, base.model.virtual_counts(routing, 1)[0])
    warn_of_cut(read)
    windows = [part for t in read for part in t.parts]
    out: list[Tensor] = [torch.empty(0)] * len(windows)
    for part in batches([len(t) for t in windows], batch_tokens(base.model.device)):
        rows = text_batch([windows[j] for j in part])
        cols = rows.cols.to(base.model.device)
        h_BTD = base.model.hidden(rows.ids_BT.to(base.model.device), cols, routing=routing).hidden
        for j, row in zip(part, pooled(h_BTD, cols.doc >= 0, cfg).cpu(), strict=True):
            out[j] = row
    if not out:
        return torch.empty(0, base.model.trunk.cfg.width)
    v_WD = torch.stack(out)
    return v_WD if len(windows) == len(read) else together(v_WD, read, cfg)


def warn_of_cut(texts: Sequence[Tokens]) -> None:
    """Warn of texts that are not read whole."""
    if (found := long_texts(texts)).cut:
        log.warning("%s", found)


def embedding_tokens(
    base: LoadedBase, texts: Sequence[str], cfg: EmbeddingConfig, before: int = 0
) -> list[Tokens]:
    """One Tokens a text, as it is read for a vector: framed, long ones cut to the limit or in windows, short ones filled up where the config
    says so; ids by number from 0. before: places of the context that an adapter takes. Raises DataError for a text without a token, and for one beyond
    the limit that is to be refused."""
    tok = base.codec.tokenizer
    context = base.model.cfg.text.context - before
    limit = min(cfg.limit or context, context)
    read = [long_tokens(tok, ids, i, limit, cfg.long) for i, ids in enumerate(tok.encode_batch(list(texts)))]
    if cfg.long == "refuse":
        refuse_long(base, read, limit, before)
    if any(not len(t) for t in read):
        raise DataError("a text has no token", "give texts that are not empty")
    if cfg.filled:
        read = [
            windowed([filled_up(base, part.ids.tolist(), limit) for part in t.parts], i, t.left_out)
            for i, t in enumerate(read)
        ]
    return read


def filled_up(base: LoadedBase, ids: list[int], limit: int) -> list[int]:
    """The ids with padding tokens behind them, up to `limit`. Raises ArtifactError where the tokenizer has none."""
    pad = base.codec.tokenizer.pad
    if pad is None:
        raise ArtifactError(
            "this base fills its texts up with a padding token, but its tokenizer has none",
            "say which one it is: pad_token in its tokenizer_config.json (of a GGUF file: tokenizer.ggml.padding_token_id)",
        )
    return ids + [pad] * (limit - len(ids))
