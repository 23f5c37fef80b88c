"""Scores of held-out documents with media: bits per byte of their text, and the flow loss of their media at times from noisy to clean."""

from dataclasses import replace

import numpy as np
import torch

from onebase.base.folder import LoadedBase
from onebase.data.sources import MARK, Document
from onebase.data.tokenising import media_sample
from onebase.engine.media_prompts import media_codec
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.evaluation.likelihood import DocumentNats, by_source, nats_of
from onebase.modality.text.sample import Tokens
from onebase.objective.flow_config import AS_READ
from onebase.objective.masked_patches import MaskedPatches
from onebase.objective.mixed import Mixed, generated
from onebase.pretraining.heldout import Heldout
from onebase.tasks.media_rows import TIMES, flow_losses_of, text_nats


def text_scores(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    """Bits per byte of each source: of plain text by next tokens, of documents with media of their text beside them."""
    nats: list[DocumentNats] = []
    for source, documents in held.documents.items():
        if any(d.media for d in documents):
            nats += _media_nats(base, source, held)
        elif documents:
            nats += nats_of(base, held.read(base, source), length=held.length)
    return by_source(nats)


def _media_nats(base: LoadedBase, source: str, held: Heldout) -> list[DocumentNats]:
    each = _tokens(base, source, held)
    nats_N, tokens_N = text_nats(base.model, [t for _, t in each], Mixed.of(base.model, held.length, AS_READ))
    texts = [document.text.replace(MARK, "").encode() for document, _ in each]
    rows = zip(nats_N, texts, tokens_N, strict=True)
    return [DocumentNats(source, float(n), len(text), int(t)) for n, text, t in rows if text]


def flow_scores(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    """Mean loss of predicting clean patches, by source, codec and time: `digits.image_patches.t0.3`."""
    out: dict[str, Score] = {}
    for source in held.documents:
        share = replace(held, tokens=held.tokens // len(TIMES))
        each = [generated(t) for _, t in _tokens(base, source, share)]
        for codec in base.model.patches:
            rows = [t for t in each if any(m.kind == codec and m.noise for m in t.media)]
            if not rows:
                continue
            for time in TIMES:
                values = flow_losses_of(base.model, rows, codec, time)
                out[f"{source}.{codec}.t{time}"] = mean_score("flow_loss", values)
    return out


@torch.no_grad()
def masked_patch_scores(base: LoadedBase, held: Heldout, decoder: str) -> dict[str, Score]:
    """Mean squared error of three quarters of the patches, hidden, which have mean 0 and deviation 1, by source and codec: `digits.image_patches`. The same
    ones are hidden in every call."""
    out: dict[str, Score] = {}
    objective = MaskedPatches.of(decoder, base.model.cfg)
    for source in held.documents:
        values: dict[str, list[float]] = {}
        for n, (_, tokens) in enumerate(_tokens(base, source, held)):
            batch = objective.batch([[tokens]], n).to(base.model.device)
            for codec, errors_N in objective.errors(base.model, batch).items():
                if len(errors_N):
                    values.setdefault(codec, []).append(float(errors_N.mean()))
        for codec, found in values.items():
            out[f"{source}.{codec}"] = mean_score("masked_patch_error", np.asarray(found))
    return out


def _tokens(base: LoadedBase, source: str, held: Heldout) -> list[tuple[Document, Tokens]]:
    """Documents with media as tokens, those alone that fit in a row, up to a source's share of the tokens."""
    codec, known = media_codec(base), held.media.setdefault(source, {})
    found, total = [], 0
    for n, document in enumerate(held.documents[source]):
        if n not in known:
            try:
                known[n] = codec.tokens(media_sample(document))
            except DataError:
                known[n] = None  # left out of training, too
        if (tokens := known[n]) is not None and len(tokens) <= held.length:
            found.append((document, tokens))
            total += len(tokens)
        if total >= held.tokens // len(held.documents):
            break
    return found
