"""Likelihood of text: nats of each document, bits per byte of each source, and the change (forgetting) after continued pretraining."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebase.base.folder import LoadedBase
from onebase.data.packing import cut
from onebase.data.sources import Document
from onebase.engine.scoring import score
from onebase.evaluation.bootstrap import Score, paired_difference
from onebase.evaluation.metrics import bits_per_byte
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting


@dataclass(frozen=True)
class DocumentNats:
    """One document: negative log-probability in nats (its EOS included), bytes of text, predicted tokens."""

    source: str
    nats: float
    bytes: int
    tokens: int


@dataclass(frozen=True)
class DocumentIds:
    """One document, tokenised once for repeated scoring: ids with BOS and EOS, int [T], and bytes of text."""

    source: str
    ids: NDArray[np.integer[Any]]
    bytes: int


def document_ids(
    base: LoadedBase, documents: Iterable[Document], max_tokens: int | None = None
) -> list[DocumentIds]:
    """Tokenise documents up to `max_tokens` in total."""
    out: list[DocumentIds] = []
    total = 0
    for doc in documents:
        ids = np.asarray(base.codec.tokenizer.encode(doc.text, bos=True, eos=True))
        out.append(DocumentIds(doc.source, ids, len(doc.text.encode())))
        total += len(ids)
        if max_tokens is not None and total >= max_tokens:
            break
    return out


def document_nats(
    base: LoadedBase,
    documents: Iterable[Document],
    *,
    length: int | None = None,
    max_tokens: int | None = None,
    routing: AdapterRouting | None = None,
) -> list[DocumentNats]:
    """`nats_of` of texts; stops after `max_tokens`."""
    return nats_of(base, document_ids(base, documents, max_tokens), length=length, routing=routing)


def nats_of(
    base: LoadedBase,
    documents: Sequence[DocumentIds],
    *,
    length: int | None = None,
    routing: AdapterRouting | None = None,
) -> list[DocumentNats]:
    """Score documents in pieces of `length` tokens (default: the base's context), each piece with a BOS of its own, as in training. If the
    base has no BOS, each piece begins with the last token of the previous one, and a document's first token is not predicted."""
    length = length or base.model.cfg.text.context - base.model.virtual_counts(routing, 1)[0]
    tok = base.codec.tokenizer
    pieces: list[list[int]] = []
    owner: list[int] = []
    totals: list[list[float | str]] = []
    for doc in documents:
        ids = doc.ids
        _, starts, stops = cut(np.asarray([len(ids)]), length)
        first = tok.begun([])
        for a, b in zip(starts, stops, strict=True):
            part = ids[a:b].tolist()
            pieces.append(part if a == 0 else [*(first or [int(ids[a - 1])]), *part])
            owner.append(len(totals))
        totals.append([doc.source, 0.0, doc.bytes, len(ids) - max(1, len(first))])
    for i, logp in zip(owner, score(base, pieces, routing), strict=True):
        totals[i][1] -= float(np.sum(np.asarray(logp)))  # type: ignore[operator]
    return [DocumentNats(str(s), float(n), int(b), int(t)) for s, n, b, t in totals]


def by_source(documents: Sequence[DocumentNats], *, seed: int = 0) -> dict[str, Score]:
    """Bits per byte of each source, with intervals over documents."""
    out = {}
    for source in sorted({d.source for d in documents}):
        mine = [d for d in documents if d.source == source]
        out[source] = bits_per_byte([d.nats for d in mine], [d.bytes for d in mine], seed=seed)
    return out


def completion_nats(
    base: LoadedBase, samples: Sequence[Tokens], routing: AdapterRouting | None = None
) -> np.ndarray:
    """Nats of the supervised tokens of each sample and their number, float64 [N, 2]."""
    out = np.zeros((len(samples), 2))
    for i, (sample, logp) in enumerate(
        zip(samples, score(base, [s.ids.tolist() for s in samples], routing), strict=True)
    ):
        mask = sample.loss[1:]
        out[i] = -float(np.asarray(logp)[mask].sum()), int(mask.sum())
    return out


DOMAIN, GENERAL = "domain", "general"
"""Sources of documents: the text trained on, and general text that should not be forgotten."""


def changes(
    before: Sequence[DocumentNats], after: Sequence[DocumentNats], *, seed: int = 0
) -> dict[str, Score]:
    """Bits per byte of each source before and after, and the change with its paired interval over documents; below 0 is an improvement. The
    change of general text is called forgetting. `before` and `after` are of the same documents in the same order."""
    out: dict[str, Score] = {}
    old, new = by_source(before, seed=seed), by_source(after, seed=seed)
    for source in new:
        pairs = [(a, b) for a, b in zip(before, after, strict=True) if b.source == source]
        change = paired_difference(
            [b.nats / math.log(2) for _, b in pairs],
            [a.nats / math.log(2) for a, _ in pairs],
            weights=[b.bytes for _, b in pairs],
            name="forgetting" if source == GENERAL else f"{source}_change",
            seed=seed,
        )
        names = f"{source}_bits_per_byte_before", f"{source}_bits_per_byte"
        for name, of in zip(names, (old[source], new[source]), strict=True):
            out[name] = replace(of, name=name)
        out[change.name] = change
    return out


def reference() -> Iterable[Document]:
    """The Python language reference as `help()` shows it: text that every Python installation contains."""
    from pydoc_data.topics import topics

    pages: dict[str, Any] = topics
    for name, text in pages.items():
        yield Document(str(text), "reference", licence="PSF-2.0", id=f"pydoc/{name}")
