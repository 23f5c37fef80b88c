"""A smaller base from a base: matrices in few bits, and what that cost, measured before it is handed over."""

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import torch

from onebase.artifact.record import Origin, Record, by_given, machine_facts, version_facts
from onebase.base.folder import LoadedBase, base_tensors
from onebase.config import from_dict, given_of
from onebase.config_plain import to_dict
from onebase.data import Document, SourceConfig, read_source
from onebase.errors import DataError, UserError
from onebase.evaluation.likelihood import document_ids, nats_of, reference
from onebase.model.config import StorageConfig
from onebase.readable import size

MEASURED_TOKENS = 1_500
COMPARED_TOKENS = 256
LENGTH = 512
LETTERS = 2_000
"""Tokens that the cost is measured on, in pieces of `LENGTH`, at most the first `LETTERS` of a document: both sides read the same ones, so that few tell the difference (in fp32 on two cores
with AVX2 some 400 a second are read)."""


@dataclass(frozen=True)
class RoundingLoss:
    """Perplexity per token on the same text before and after, the share of tokens after which both expect the same next one most,
    and bytes of the weights."""

    perplexity_before: float
    perplexity: float
    agreement: float
    tokens: int
    bytes_before: int
    bytes: int

    @property
    def line(self) -> str:
        """One line for people."""
        rise = 100 * (self.perplexity / self.perplexity_before - 1)
        return (
            f"{size(self.bytes)} instead of {size(self.bytes_before)}; perplexity {self.perplexity:.3f} instead of "
            f"{self.perplexity_before:.3f} ({rise:+.2f}%) on {self.tokens:,} tokens, same first choice after {100 * self.agreement:.1f}%"
        )


class StorageOptions(TypedDict, total=False):
    """What may be given beside the bits: see `StorageConfig`."""

    group: int
    head: int | None


def quantise(
    base: LoadedBase,
    storage: StorageConfig,
    documents: Iterable[Document] | None = None,
    *,
    tokens: int = MEASURED_TOKENS,
    given: Mapping[str, Any] | None = None,
) -> tuple[LoadedBase, RoundingLoss]:
    """A base with its matrices in few bits, whose record names `base` as parent and holds the cost; `base` stays as it was.

    documents: what the cost is measured on, up to `tokens` tokens (the Python language reference when not given: state your own for
    a base of another language or field). given: what the user gave of `storage`, for the record. Raises UserError for a base that is quantised already or predicts no tokens, ConfigError for
    matrices that do not divide into groups, DataError without text.
    """
    if not base.model.cfg.text.head or base.model.cfg.trunks["text"].direction != "causal":
        raise UserError(
            "this base predicts no next tokens, so what quantising costs cannot be measured",
            "quantise a decoder",
        )
    began = time.perf_counter()
    made = LoadedBase(copy.deepcopy(base.model), base.codec, Record("base"), head=base.head)
    made.model.requires_grad_(False).quantise(storage)
    # Few enough that both sides read the same whole documents.
    texts = islice(documents if documents is not None else reference(), 1000)
    some = [replace(d, text=d.text[:LETTERS]) for d in texts]
    cost = measured(base, made, some, tokens)
    r = made.record
    relied = {k: v for k, v in base.hashes.items() if k != "fingerprint"}
    r.add("name", f"{base.name or 'base'}-{storage.bits}bit", f"{Origin.COMPUTED} from the base's name")
    r.add_parent("base", base.fingerprint, base.name, **relied)
    r.inherit(base.record, base.name)
    stated = given_of(storage).overrides if given is None else given
    r.add_tree("config.storage", to_dict(storage), by_given(stated))
    if documents is None:
        r.add("quantised.text", "the Python language reference", Origin.DEFAULT)
    else:
        r.add("quantised.text", "given by the user", Origin.USER)
    r.add("quantised.tokens", cost.tokens, "counted")
    r.add("quantised.perplexity", cost.perplexity, "measured")
    r.add("quantised.perplexity_before", cost.perplexity_before, "measured")
    r.add("quantised.agreement", cost.agreement, f"measured on {COMPARED_TOKENS} tokens at most")
    r.add("quantised.bytes", cost.bytes, "counted")
    r.add("quantised.bytes_before", cost.bytes_before, "counted")
    r.add("seconds", round(time.perf_counter() - began, 3), "measured")
    r.add("machine", machine_facts(), Origin.SYSTEM)
    r.add("versions", version_facts(), Origin.PACKAGES)
    return made, cost


def quantised(base: LoadedBase, bits: int, data: str | Path | None, given: StorageOptions) -> LoadedBase:
    """`quantise` from plain values. Raises ConfigError for a number of bits that is not 4 or 8."""
    said = {"bits": bits, **given}
    storage = from_dict(StorageConfig, said, "quantize")
    documents = None
    if data is not None:
        documents = read_source(SourceConfig(name="text", kind="text", path=str(data)))
    made, cost = quantise(base, storage, documents, given=said)
    made.record.add("quantised.line", cost.line, "computed from the numbers above")
    return made


def measured(
    before: LoadedBase, after: LoadedBase, documents: Sequence[Document], tokens: int
) -> RoundingLoss:
    """What the change from one base to the other costs on these documents."""
    length = min(LENGTH, before.model.cfg.text.context)
    read = document_ids(before, documents, tokens)
    found = [nats_of(b, read, length=length) for b in (before, after)]
    counts = [sum(d.tokens for d in each) for each in found]
    if not counts[0]:
        raise DataError("the text to measure on is empty", "give some pages of text")
    assert counts[0] == counts[1]
    nats = [sum(d.nats for d in each) / counts[0] for each in found]
    return RoundingLoss(
        perplexity_before=math.exp(nats[0]),
        perplexity=math.exp(nats[1]),
        agreement=_agreement(before, after, documents),
        tokens=counts[0],
        bytes_before=weight_bytes(before),
        bytes=weight_bytes(after),
    )


def weight_bytes(base: LoadedBase) -> int:
    """Bytes of the base's own tensors."""
    return sum(t.numel() * t.element_size() for t in base_tensors(base.model).values())


@torch.no_grad()
def _agreement(before: LoadedBase, after: LoadedBase, documents: Sequence[Document]) -> float:
    same = total = 0
    context = before.model.cfg.text.context
    for d in documents:
        ids = before.codec.tokenizer.encode(d.text, bos=True)[: min(context, COMPARED_TOKENS - total)]
        if not ids:
            continue
        one, two = (
            b.model.logits(torch.tensor([ids], device=b.model.device))[0].argmax(-1).cpu()
            for b in (before, after)
        )
        same, total = same + int((one == two).sum()), total + len(ids)
        if total >= COMPARED_TOKENS:
            break
    return same / max(1, total)
