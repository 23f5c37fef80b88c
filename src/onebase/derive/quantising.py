"""Quantizes a base, and measures the loss before the result is returned."""

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
"""Tokens that the loss is measured on, in pieces of `LENGTH`, at most the first `LETTERS` characters of a document. Both bases read the same
tokens, so few show the difference (in fp32 two cores with AVX2 read about 400 a second)."""


@dataclass(frozen=True)
class RoundingLoss:
    """Perplexity per token on the same text before and after, the share of tokens after which both rank the same next token first,
    and bytes of the weights."""

    perplexity_before: float
    perplexity: float
    agreement: float
    tokens: int
    bytes_before: int
    bytes: int

    @property
    def line(self) -> str:
        """A one-line summary."""
        rise = 100 * (self.perplexity / self.perplexity_before - 1)
        return (
            f"{size(self.bytes)} instead of {size(self.bytes_before)}; perplexity {self.perplexity:.3f} instead of "
            f"{self.perplexity_before:.3f} ({rise:+.2f}%) on {self.tokens:,} tokens, same first choice after {100 * self.agreement:.1f}%"
        )


class StorageOptions(TypedDict, total=False):
    """Options other than the bits: see `StorageConfig`."""

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
    """A copy of the base with quantized matrices. Its record names `base` as parent and has the loss; `base` does not change.

    documents: text that the loss is measured on, at most `tokens` tokens (default: the Python language reference; give your own for a base of
    another language or field). given: the values of `storage` that the user set, for the record. Raises UserError for a base that is
    quantized already or predicts no tokens, ConfigError for matrices that do not divide into groups, DataError without text.
    """
    if not base.model.cfg.text.head or base.model.cfg.trunks["text"].direction != "causal":
        raise UserError(
            "this base predicts no next tokens, so the loss by quantization cannot be measured",
            "quantize a decoder",
        )
    began = time.perf_counter()
    result = LoadedBase(copy.deepcopy(base.model), base.codec, Record("base"), head=base.head)
    result.model.requires_grad_(False).quantise(storage)
    # Few enough that both bases read the same whole documents.
    texts = islice(documents if documents is not None else reference(), 1000)
    sample = [replace(d, text=d.text[:LETTERS]) for d in texts]
    loss = measured(base, result, sample, tokens)
    r = result.record
    hashes = {k: v for k, v in base.hashes.items() if k != "fingerprint"}
    r.add("name", f"{base.name or 'base'}-{storage.bits}bit", f"{Origin.COMPUTED} from the base's name")
    r.add_parent("base", base.fingerprint, base.name, **hashes)
    r.inherit(base.record, base.name)
    overrides = given_of(storage).overrides if given is None else given
    r.add_tree("config.storage", to_dict(storage), by_given(overrides))
    if documents is None:
        r.add("quantised.text", "the Python language reference", Origin.DEFAULT)
    else:
        r.add("quantised.text", "given by the user", Origin.USER)
    r.add("quantised.tokens", loss.tokens, "counted")
    r.add("quantised.perplexity", loss.perplexity, "measured")
    r.add("quantised.perplexity_before", loss.perplexity_before, "measured")
    r.add("quantised.agreement", loss.agreement, f"measured on {COMPARED_TOKENS} tokens at most")
    r.add("quantised.bytes", loss.bytes, "counted")
    r.add("quantised.bytes_before", loss.bytes_before, "counted")
    r.add("seconds", round(time.perf_counter() - began, 3), "measured")
    r.add("machine", machine_facts(), Origin.SYSTEM)
    r.add("versions", version_facts(), Origin.PACKAGES)
    return result, loss


def quantised(base: LoadedBase, bits: int, data: str | Path | None, given: StorageOptions) -> LoadedBase:
    """`quantise` with plain values. Raises ConfigError if `bits` is not 4 or 8."""
    options = {"bits": bits, **given}
    storage = from_dict(StorageConfig, options, "quantize")
    documents = None
    if data is not None:
        documents = read_source(SourceConfig(name="text", kind="text", path=str(data)))
    result, loss = quantise(base, storage, documents, given=options)
    result.record.add("quantised.line", loss.line, "computed from the numbers above")
    return result


def measured(
    before: LoadedBase, after: LoadedBase, documents: Sequence[Document], tokens: int
) -> RoundingLoss:
    """The loss on these documents from one base to the other."""
    length = min(LENGTH, before.model.cfg.text.context)
    ids = document_ids(before, documents, tokens)
    nats_by_base = [nats_of(b, ids, length=length) for b in (before, after)]
    counts = [sum(d.tokens for d in each) for each in nats_by_base]
    if not counts[0]:
        raise DataError("the text to measure the loss on is empty", "give some pages of text")
    assert counts[0] == counts[1]
    nats = [sum(d.nats for d in each) / counts[0] for each in nats_by_base]
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
        first, second = (
            b.model.logits(torch.tensor([ids], device=b.model.device))[0].argmax(-1).cpu()
            for b in (before, after)
        )
        same, total = same + int((first == second).sum()), total + len(ids)
        if total >= COMPARED_TOKENS:
            break
    return same / max(1, total)
