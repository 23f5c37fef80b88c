"""A base of its own from a base and the adapter on it, and what rounding does to it where the base is kept in few bits or half precision."""

import copy
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from onebase.artifact.record import Origin, Record
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.errors import DataError, UserError
from onebase.evaluation.likelihood import reference
from onebase.methods.folder import Attached
from onebase.methods.merge import Rounding, merge
from onebase.methods.table import METHODS

MAX_DRIFT, MAX_SHARE = 0.05, 0.25
"""Beyond these a merge into few bits is refused: nats a token that rounding changes what is said by, and that as a share of what the adapter
changes it by."""
DRIFT_TOKENS = 1000
MAX_LOST = 0.01
"""Beyond this share of the deltas' length a merge into weights in half precision warns of what rounding takes away."""
log = logging.getLogger(__name__)


def merged(
    base: LoadedBase, attached: Attached, name: str, max_drift: float | None = None, *, fp32: bool = False
) -> LoadedBase:
    """The adapter's deltas, or replaced weights, in a copy of the base's weights, and both as parents in its record. `name` is the base's.

    A base in few bits is rounded anew; the record says what that does (`Drift`). max_drift: nats a token that are accepted; when not given,
    MAX_DRIFT and MAX_SHARE of what the adapter does. fp32: the copy's weights become fp32 first, so that nothing of the deltas is rounded
    away; else the record says what is, and beyond MAX_LOST of them a warning. Raises UserError where the drift is more, or cannot be
    measured because the base predicts no tokens from text alone, and for fp32 on a base in few bits.
    """
    if max_drift is not None and not 0 <= max_drift < math.inf:
        raise UserError(f"max_drift is {max_drift}", "give nats a token, from 0 on")
    model = copy.deepcopy(attached.base.model)
    if fp32 and model.cfg.storage is not None:
        raise UserError(
            f"the base is kept in {model.cfg.storage.bits} bits, its merge cannot be in fp32",
            "merge into the base that it was made from, and quantize the result",
        )
    model = model.float() if fp32 else model
    rounding = merge(model, [(METHODS[a.method], a.name) for a in attached.stack])
    drift = None
    if (storage := model.cfg.storage) is not None:
        drift = measured(attached, model)
        most = min(MAX_DRIFT, MAX_SHARE * drift.effect) if max_drift is None else max_drift
        if drift.mean > most:
            limit = f"{MAX_DRIFT} nats, and {MAX_SHARE:.0%} of what the adapter does, are"
            raise UserError(
                f"the base is kept in {storage.bits} bits: rounded anew it says other things than with the adapter beside it ({drift.line}; "
                f"at most {limit if max_drift is None else f'{max_drift} nats are'} accepted)",
                "serve the adapter beside the base, merge first and quantize the result, or accept more (max_drift)",
            )
    record = Record("base")
    record.add("name", f"{name}-merged", f"{Origin.COMPUTED} from the names of base and adapter")
    record.add_parent("base", base.fingerprint, name)
    record.inherit(base.record, name)
    for each in attached.stack:
        record.add_parent("adapter", each.fingerprint, each.name)
    if drift is not None:
        origin = f"measured on {drift.tokens} tokens of the Python language reference"
        record.add(
            "merged.drift", drift.mean, f"{origin}: mean KL, nats a token, from the adapter beside the base"
        )
        record.add("merged.drift_most", drift.most, f"{origin}: largest difference of a logit")
        record.add("merged.max_drift", most, Origin.DEFAULT if max_drift is None else Origin.USER)
        record.add(
            "merged.effect", drift.effect, f"{origin}: mean KL from the adapter to the base without it"
        )
    _note_lost(record, rounding, name)
    if model.cfg != base.model.cfg:
        record.add(
            "untied", True, "computed: the adapter adds different rows to the two ends, which shared a matrix"
        )
    return LoadedBase(
        model,
        base.text_codec,
        record,
        embedding=attached.config.embedding or base.embedding,
        speech=base.speech,
    )


def _note_lost(record: Record, rounding: Rounding, name: str) -> None:
    """Say in the record what storing the merged weights in half precision takes away, and warn where that is much."""
    if not rounding.by:
        return
    (site, most), lost = rounding.worst, rounding.lost
    origin = "measured: |stored - exact| / |delta|, Euclidean lengths"
    record.add("merged.lost", lost, f"{origin}, over all changed matrices together")
    record.add("merged.lost_most", {"matrix": site, "lost": most}, f"{origin}, of the matrix that loses most")
    record.add("merged.lost_limit", MAX_LOST, "default: beyond it a warning is given")
    if lost > MAX_LOST:
        log.warning(
            "%s: its weights are stored in half precision, and rounding takes %.1f%% of the adapter's change of them (most at %s: %.1f%%; %.0f%% pass "
            "without a word): merge to fp32 (merged(fp32=True), onebase merge --fp32), or serve the adapter beside the base",
            name,
            100 * lost,
            site,
            100 * most,
            100 * MAX_LOST,
        )


@dataclass(frozen=True)
class Drift:
    """What a merge changes. mean: KL(adapter beside the base || merged), nats a token; effect: KL(adapter beside the base || base alone),
    likewise; most: the largest difference of a logit."""

    mean: float
    effect: float
    most: float
    tokens: int

    @property
    def line(self) -> str:
        return f"{self.mean:.4f} nats a token, where the adapter changes {self.effect:.4f}"


@torch.no_grad()
def measured(attached: Attached, made: BaseModel, texts: Iterable[str] | None = None) -> Drift:
    """The drift of a merged model on texts, up to DRIFT_TOKENS tokens (of the Python language reference when not given)."""
    base, routing = attached.base, attached.routing
    cfg = base.model.cfg
    if set(cfg.trunks) != {"text"} or cfg.trunks["text"].direction != "causal" or not cfg.text.head:
        raise UserError(
            "the base is kept in few bits and predicts no tokens from text alone, so what a merge does cannot be measured",
            "serve the adapter beside the base, or merge first and quantize the result",
        )
    total = torch.zeros(2, dtype=torch.float64)
    most, count = 0.0, 0
    for text in texts if texts is not None else (d.text for d in reference()):
        ids = base.codec.tokenizer.encode(text, bos=True)[: min(256, cfg.text.context, DRIFT_TOKENS - count)]
        if not ids:
            continue
        ids_BT = torch.tensor([ids], device=base.model.device)
        beside_TV = base.model.logits(ids_BT, routing)[0]
        others = [made.logits(ids_BT)[0], base.model.logits(ids_BT)[0]]
        logp_TV = beside_TV.log_softmax(-1)
        for i, z_TV in enumerate(others):
            kl_T = (logp_TV.exp() * (logp_TV - z_TV.log_softmax(-1))).sum(-1)
            total[i] += float(kl_T.double().sum())
        most = max(most, float((beside_TV - others[0]).abs().max()))
        count += len(ids)
        if count >= DRIFT_TOKENS:
            break
    if not count:
        raise DataError("the text to measure on is empty", "give some text")
    mean, effect = (total / count).tolist()
    return Drift(max(0.0, mean), max(0.0, effect), most, count)
