"""Texts as tokens, pooled features and vectors of a base."""

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
from onebase.engine.scoring import batch_tokens, batches
from onebase.errors import ArtifactError, DataError, UserError
from onebase.modality.text.codec import Known
from onebase.modality.text.long import Long, long_texts, parts_of, picked
from onebase.modality.text.pairs import cut_pair, pair_frame
from onebase.modality.text.pooling import EmbeddingConfig, pooled
from onebase.modality.text.sample import Tokens, chat_sample, completion_sample
from onebase.modality.text.tokenizer import Tokenizer
from onebase.model.proj import AdapterRouting
from onebase.objective.padding import whole
from onebase.objective.pooled import How, mean_of_windows, narrowed, pool, text_batch

log = logging.getLogger(__name__)


def text_tokens(
    base: LoadedBase,
    texts: Sequence[str],
    limit: int | None = None,
    before: int = 0,
    long: Long = "refuse",
) -> list[Tokens]:
    """Tokenise texts, with the special tokens around a whole text; ids are numbers.

    limit: in tokens (default: the context). long: how to shorten a text beyond it. before: context positions that an adapter uses.
    """
    tok = base.codec.tokenizer
    most = room_of(base, limit, before)
    read = [long_tokens(tok, ids, i, most, long) for i, ids in enumerate(tok.encode_batch(list(texts)))]
    refuse_long(base, read, limit, before)
    return read


def room_of(base: LoadedBase, limit: int | None, before: int) -> int:
    """Tokens that a text may have: the limit, or the context less the positions that an adapter uses before the text."""
    context = base.model.cfg.text.context - before
    return min(limit or context, context) if before else limit or context


def long_tokens(tok: Tokenizer, ids: Sequence[int], number: int, limit: int, long: Long) -> Tokens:
    """A text of these ids with its special tokens, shortened by `long` if it is beyond the limit ("refuse": unchanged, to be refused later)."""
    room = limit - len(tok.framed([]))
    if len(ids) <= room or long == "refuse" or room < 1:
        return given_tokens(tok.framed(ids), number)
    parts = parts_of(len(ids), room, long)
    return windowed([tok.framed(picked(ids, p)) for p in parts], number, sum(p.left_out for p in parts))


def windowed(windows: Sequence[Sequence[int]], number: int, left_out: int) -> Tokens:
    """A text from the tokens of one or more windows."""
    sizes = tuple(map(len, windows)) if len(windows) > 1 else ()
    return replace(given_tokens(np.concatenate(windows), number), windows=sizes, left_out=left_out)


def refuse_long(base: LoadedBase, texts: Sequence[Tokens], limit: int | None = None, before: int = 0) -> None:
    """Raise DataError for a text without tokens, or longer than the limit (the context, less `before`)."""
    limit = room_of(base, limit, before)
    for i, text in enumerate(texts, 1):
        if text.windows:
            continue
        if not len(text):
            raise DataError(f"row {i} has no tokens", "give a text that is not empty")
        if len(text) > limit:
            raise DataError(
                f"row {i} has {len(text)} tokens, the limit is {limit}"
                + (f" after the adapter's {before} virtual tokens" if before else ""),
                "shorten it (to cut long texts or read them in windows, train the adapter with -o long=head, tail, middle or windows)",
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
    """Tokenise pairs of texts, with the special tokens around a pair; ids are numbers. Raises DataError.

    limit: in tokens (default: the context). cut: cut the end of the longer text of a pair beyond the limit, instead of refusing it. typed: give
    the second text the second token type, if the base has types. before: context positions that an adapter uses."""
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
            raise DataError(f"pair {i + 1} has no tokens", "give texts that are not empty")
        typed_T = np.asarray(types, np.int32) if typed else None
        left_out = len(first) + len(second) - a - b
        out.append(replace(given_tokens(ids, i), types=typed_T, left_out=left_out))
    return out


def given_tokens(ids: Sequence[int] | NDArray[np.int32], number: int) -> Tokens:
    """Tokens without a loss."""
    return Tokens(np.asarray(ids, np.int32), np.zeros(len(ids), np.bool_), str(number), "labelled")


def completion_row(
    base: LoadedBase, row: Mapping[str, Any], name: str = "", known: Known | None = None
) -> Tokens:
    """A row with prompt and completion as tokens, the completion supervised. known: as for `TextCodec.tokens`."""
    return base.codec.tokens(
        completion_sample(row["prompt"], row["completion"], id=name, source="sft"), known
    )


def chat_row(base: LoadedBase, row: Mapping[str, Any], name: str = "", known: Known | None = None) -> Tokens:
    """A row with messages as tokens, the assistant's parts supervised. Raises DataError for messages that the template refuses."""
    return base.codec.tokens(chat_sample(row["messages"], id=name, source="sft"), known)


def completion_rows(base: LoadedBase, rows: Sequence[Mapping[str, Any]]) -> list[Tokens]:
    """`completion_row` of each; ids are numbers from 1."""
    return [completion_row(base, r, str(i)) for i, r in enumerate(rows, 1)]


def chat_rows(base: LoadedBase, rows: Sequence[Mapping[str, Any]]) -> list[Tokens]:
    """`chat_row` of each; ids are numbers from 1."""
    return [chat_row(base, r, str(i)) for i, r in enumerate(rows, 1)]


def vector_of(base: LoadedBase) -> EmbeddingConfig:
    """How this base pools a whole text into a vector of length 1: its embedding config, or else the mean of the states."""
    return replace(base.embedding or EmbeddingConfig(), normalise=True, filled=False)


def suits_vector(base: LoadedBase, texts: Sequence[Tokens]) -> bool:
    """Whether at least half of the texts are no longer than those that the base's vectors were trained for."""
    limit = vector_of(base).limit or base.model.cfg.text.context
    return sum(len(t) + t.left_out > limit for t in texts) * 2 <= len(texts)


def pooling_of(base: LoadedBase, read: Read) -> How:
    """The argument of `objective.pooled.pool` for the features that a head reads."""
    return vector_of(base) if read == "vector" else read


def features(base: LoadedBase, texts: Sequence[Tokens], read: Read, routing: AdapterRouting | None) -> Tensor:
    """Pooled hidden states, fp32 [N, P] on the CPU, in input order. Texts of similar length share a batch."""
    return views(base, texts, (read,), routing)[read]


def views(
    base: LoadedBase, texts: Sequence[Tokens], reads: Sequence[Read], routing: AdapterRouting | None
) -> dict[Read, Tensor]:
    """`features` for several poolings, with one forward per text."""
    if (
        base.memory is None or routing is not None or "cls" in reads
    ):  # the cached features have no first state
        hows = tuple(pooling_of(base, r) for r in reads)
        columns = zip(*_read(base, texts, hows, routing), strict=True)
        return {r: torch.stack(x) for r, x in zip(reads, columns, strict=True)}
    known, keys = base.memory.texts, [text_key(t) for t in texts]
    new = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
    pooled_states = _read(base, list(new.values()), ("all", vector_of(base)), None)
    known.update((k, torch.cat(x)) for k, x in zip(new, pooled_states, strict=True))
    x_NP = torch.stack([known[k] for k in keys])
    states = x_NP.shape[1] // 4 * 3
    return {r: x_NP[:, states:] if r == "vector" else narrowed(x_NP[:, :states], r) for r in reads}


def text_key(text: Tokens) -> bytes:
    """The key of a text in the base's cache."""
    types = b"" if text.types is None else b"|" + text.types.tobytes()
    media = "".join(f"|{m.kind} {m.content.digest}" for m in text.media).encode()
    return repr(text.windows).encode() + text.ids.tobytes() + types + media


@contextmanager
def remembering(base: LoadedBase) -> Iterator[None]:
    """Cache the features of texts (of the base without adapters) inside the block, and hash the weights once. Raises UserError at the end if the
    weights have changed."""
    if base.memory is not None:
        raise UserError("this base is already caching features", "leave the first block before the second")
    base.memory = FeatureMemo()
    try:
        yield
        hashed = base.memory.weights
    finally:
        base.memory = None
    if hashed is not None and base.reread() != hashed:
        raise UserError(
            "the base's weights changed while it cached the features of texts",
            "change them outside the block",
        )


@torch.no_grad()
def _read(
    base: LoadedBase, texts: Sequence[Tokens], hows: Sequence[How], routing: AdapterRouting | None
) -> list[tuple[Tensor, ...]]:
    """Pooled hidden states of each text by each method, fp32 [P] on the CPU."""
    device, windows = base.model.device, [part for t in texts for part in t.parts]
    out: list[tuple[Tensor, ...]] = [()] * len(windows)
    for part in batches([len(t) for t in windows], batch_tokens(device)):
        read = text_batch([windows[j] for j in part])
        read = read.to(device)
        h_BTD = whole(base.model, read, routing)
        pooled_BP = [pool(h_BTD, read.cols.doc, how).cpu() for how in hows]
        for j, *rows in zip(part, *pooled_BP, strict=True):
            out[j] = tuple(rows)
    if len(windows) == len(texts):
        return out
    each = [together(torch.stack(x), texts, how) for x, how in zip(zip(*out, strict=True), hows, strict=True)]
    return list(zip(*each, strict=True))


def together(x_WP: Tensor, texts: Sequence[Tokens], how: How) -> Tensor:
    """Combine the pooled features of all windows into those of the texts, [N, P]."""
    text_W = torch.tensor([n for n, t in enumerate(texts) for _ in t.parts])
    return mean_of_windows(x_WP, text_W, how)


@torch.no_grad()
def embeddings(
    base: LoadedBase, texts: Sequence[str], cfg: EmbeddingConfig, routing: AdapterRouting | None
) -> Tensor:
    """Vectors of texts by an embedding config, fp32 [N, D] on the CPU; it also decides how long texts are shortened."""
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
    """Warn about texts that are cut."""
    if (long := long_texts(texts)).cut:
        log.warning("%s", long)


def embedding_tokens(
    base: LoadedBase, texts: Sequence[str], cfg: EmbeddingConfig, before: int = 0
) -> list[Tokens]:
    """Tokenise texts for embedding: with special tokens; long texts cut or in windows, and short ones padded, as the config says; ids are numbers
    from 0. before: context positions that an adapter uses. Raises DataError for a text without tokens, and for one beyond the limit if the config
    refuses it."""
    tok = base.codec.tokenizer
    context = base.model.cfg.text.context - before
    limit = min(cfg.limit or context, context)
    read = [long_tokens(tok, ids, i, limit, cfg.long) for i, ids in enumerate(tok.encode_batch(list(texts)))]
    if cfg.long == "refuse":
        refuse_long(base, read, limit, before)
    if any(not len(t) for t in read):
        raise DataError("a text has no tokens", "give texts that are not empty")
    if cfg.filled:
        read = [
            windowed([filled_up(base, part.ids.tolist(), limit) for part in t.parts], i, t.left_out)
            for i, t in enumerate(read)
        ]
    return read


def filled_up(base: LoadedBase, ids: list[int], limit: int) -> list[int]:
    """The ids padded at the end to `limit`. Raises ArtifactError if the tokenizer has no padding token."""
    pad = base.codec.tokenizer.pad
    if pad is None:
        raise ArtifactError(
            "this base pads its texts with a padding token, but its tokenizer has none",
            "set it: pad_token in its tokenizer_config.json (in a GGUF file: tokenizer.ggml.padding_token_id)",
        )
    return ids + [pad] * (limit - len(ids))
