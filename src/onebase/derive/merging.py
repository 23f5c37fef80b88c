"""Merges an adapter into a copy of its base, and measures the effect of rounding if the base is quantized or in half precision."""

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
"""Limits of a merge into a quantized base: the drift of the output by rounding, in nats a token, and as a share of the adapter's own effect."""
DRIFT_TOKENS = 1000
MAX_LOST = 0.01
"""A merge into half precision warns if rounding loses more than this share of the deltas' length."""
log = logging.getLogger(__name__)


def merged(
    base: LoadedBase, attached: Attached, name: str, max_drift: float | None = None, *, fp32: bool = False
) -> LoadedBase:
    """Merge the adapter's deltas, or its replaced weights, into a copy of the base. The record names both as parents. `name` is the base's.

    A quantized base is quantized again; the record has the resulting `Drift`. max_drift: accepted drift in nats a token (default: MAX_DRIFT,
    and MAX_SHARE of the adapter's effect). fp32: convert the copy to fp32 first, so that rounding loses nothing of the deltas. Otherwise the
    loss is recorded, with a warning above MAX_LOST. Raises UserError if the drift is above the limit or cannot be measured because the base
    predicts no tokens from text alone, and for fp32 on a quantized base.
    """
    if max_drift is not None and not 0 <= max_drift < math.inf:
        raise UserError(f"max_drift is {max_drift}", "give nats a token, 0 or more")
    model = copy.deepcopy(attached.base.model)
    if fp32 and model.cfg.storage is not None:
        raise UserError(
            f"the base is quantized to {model.cfg.storage.bits} bits, so it cannot be merged in fp32",
            "merge into the base that it was quantized from, and quantize the result",
        )
    model = model.float() if fp32 else model
    rounding = merge(model, [(METHODS[a.method], a.name) for a in attached.stack])
    drift = None
    if (storage := model.cfg.storage) is not None:
        drift = measured(attached, model)
        most = min(MAX_DRIFT, MAX_SHARE * drift.effect) if max_drift is None else max_drift
        if drift.mean > most:
            limit = f"{MAX_DRIFT} nats, and {MAX_SHARE:.0%} of the adapter's effect, are"
            raise UserError(
                f"the base is quantized to {storage.bits} bits: the merge changes its output too much, compared with the attached adapter "
                f"({drift.line}; at most {limit if max_drift is None else f'{max_drift} nats are'} accepted)",
                "serve the adapter with the base, merge first and quantize the result, or raise the limit (max_drift)",
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
        autoencoder=base.autoencoder,
    )


def _note_lost(record: Record, rounding: Rounding, name: str) -> None:
    """Record what storing the merged weights in half precision loses, and warn if that is much."""
    if not rounding.by:
        return
    (site, most), lost = rounding.worst, rounding.lost
    origin = "measured: |stored - exact| / |delta|, Euclidean lengths"
    record.add("merged.lost", lost, f"{origin}, over all changed matrices together")
    record.add("merged.lost_most", {"matrix": site, "lost": most}, f"{origin}, of the matrix that loses most")
    record.add("merged.lost_limit", MAX_LOST, "default: beyond it a warning is given")
    if lost > MAX_LOST:
        log.warning(
            "%s: its weights are stored in half precision, and rounding loses %.1f%% of the adapter's change (most at %s: %.1f%%; the limit of "
            "this warning is %.0f%%): merge to fp32 (merged(fp32=True), onebase merge --fp32), or serve the adapter with the base",
            name,
            100 * lost,
            site,
            100 * most,
            100 * MAX_LOST,
        )


@dataclass(frozen=True)
class Drift:
    """Change of the output by a merge. mean: KL(base with adapter || merged), nats a token; effect: KL(base with adapter || base alone),
    nats a token; most: the largest difference of a logit."""

    mean: float
    effect: float
    most: float
    tokens: int

    @property
    def line(self) -> str:
        return f"{self.mean:.4f} nats a token; the adapter's own effect is {self.effect:.4f}"


@torch.no_grad()
def measured(attached: Attached, made: BaseModel, texts: Iterable[str] | None = None) -> Drift:
    """The drift of a merged model on at most DRIFT_TOKENS tokens of `texts` (default: the Python language reference)."""
    base, routing = attached.base, attached.routing
    cfg = base.model.cfg
    if set(cfg.trunks) != {"text"} or cfg.trunks["text"].direction != "causal" or not cfg.text.head:
        raise UserError(
            "the base is quantized and predicts no tokens from text alone, so the drift of a merge cannot be measured",
            "serve the adapter with the base, or merge first and quantize the result",
        )
    total = torch.zeros(2, dtype=torch.float64)
    most, count = 0.0, 0
    for text in texts if texts is not None else (d.text for d in reference()):
        ids = base.codec.tokenizer.encode(text, bos=True)[: min(256, cfg.text.context, DRIFT_TOKENS - count)]
        if not ids:
            continue
        ids_BT = torch.tensor([ids], device=base.model.device)
        adapted_TV = base.model.logits(ids_BT, routing)[0]
        others = [made.logits(ids_BT)[0], base.model.logits(ids_BT)[0]]
        logp_TV = adapted_TV.log_softmax(-1)
        for i, z_TV in enumerate(others):
            kl_T = (logp_TV.exp() * (logp_TV - z_TV.log_softmax(-1))).sum(-1)
            total[i] += float(kl_T.double().sum())
        most = max(most, float((adapted_TV - others[0]).abs().max()))
        count += len(ids)
        if count >= DRIFT_TOKENS:
            break
    if not count:
        raise DataError("the text to measure the drift on is empty", "give some text")
    mean, effect = (total / count).tolist()
    return Drift(max(0.0, mean), max(0.0, effect), most, count)
