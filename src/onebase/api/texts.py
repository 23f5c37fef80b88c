"""Texts under a base: as tokens, as pooled features, and as classes by a head or by the probability of answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.adapt.config import AdapterConfig, PromptConfig
from onebase.adapt.head import Head
from onebase.base.folder import LoadedBase, Memory
from onebase.codec.text.pooling import EmbeddingConfig, pooled
from onebase.codec.text.sample import Tokens, chat_sample, completion_sample
from onebase.errors import ArtifactError, DataError, UserError
from onebase.generate.score import batches, score
from onebase.model.proj import Active
from onebase.objective.pooled import Pooling, narrowed, pool, text_batch


def text_tokens(
    base: LoadedBase, texts: Sequence[str], limit: int | None = None, before: int = 0
) -> list[Tokens]:
    """One Tokens a text, framed as the base reads a whole text, ids by number; one longer than the limit (the context) is refused.

    before: places of the context that an adapter takes.
    """
    context = base.model.cfg.text.context - before
    limit = min(limit or context, context) if before else limit or context
    tok = base.codec.tokenizer
    out = []
    for i, ids in enumerate(map(tok.framed, tok.encode_batch(list(texts)))):
        if not ids:
            raise DataError(f"row {i + 1} has no token", "give a text that is not empty")
        if len(ids) > limit:
            raise DataError(
                f"row {i + 1} has {len(ids)} tokens, the limit is {limit}"
                + (f" behind the {before} of the adapter" if before else ""),
                "shorten it, or raise max_length",
            )
        out.append(_given(ids, i))
    return out


def _given(ids: Sequence[int], number: int) -> Tokens:
    """Tokens of which nothing is learnt."""
    return Tokens(np.asarray(ids, np.int32), np.zeros(len(ids), np.bool_), str(number), "labelled")


def completion_rows(base: LoadedBase, rows: Sequence[dict[str, Any]]) -> list[Tokens]:
    """Rows with prompt and completion as tokens, the completion supervised."""
    samples = (
        completion_sample(r["prompt"], r["completion"], id=str(i), source="sft")
        for i, r in enumerate(rows, 1)
    )
    return [base.codec.tokens(s) for s in samples]


def chat_rows(base: LoadedBase, rows: Sequence[dict[str, Any]]) -> list[Tokens]:
    """Rows with messages as tokens, the assistant's parts supervised."""
    out = []
    for i, r in enumerate(rows, 1):
        try:
            out.append(base.codec.tokens(chat_sample(r["messages"], id=str(i), source="sft")))
        except DataError as e:  # the template knows the message, not the row
            raise DataError(f"row {i}: {e.cause}", e.remedy) from None
    return out


def features(base: LoadedBase, texts: Sequence[Tokens], pooling: Pooling, active: Active | None) -> Tensor:
    """Pooled hidden states, fp32 [N, P] on the CPU, in the order given. Texts of like length share a batch."""
    if base.memory is None or active is not None:
        return torch.stack(_read(base, texts, pooling, active))
    known, keys = base.memory.texts, [t.ids.tobytes() for t in texts]
    new = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
    known.update(zip(new, _read(base, list(new.values()), "all", None), strict=True))
    return narrowed(torch.stack([known[k] for k in keys]), pooling)


@contextmanager
def remembering(base: LoadedBase) -> Iterator[None]:
    """Inside, a text that the base without adapters has read is not read again, and its weights are hashed once. Raises UserError at the
    end when they changed meanwhile."""
    if base.memory is not None:
        raise UserError("this base is remembering already", "leave the first block before the second")
    base.memory = Memory()
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
def _read(base: LoadedBase, texts: Sequence[Tokens], pooling: Pooling, active: Active | None) -> list[Tensor]:
    """Pooled hidden states of each text, fp32 [P] on the CPU."""
    device = base.model.device
    out: list[Tensor] = [torch.empty(0)] * len(texts)
    for part in batches([len(t) for t in texts], batch_tokens(device)):
        read = text_batch([texts[j] for j in part])
        cols = read.cols.to(device)
        h_BTD = base.model.hidden(read.ids_BT.to(device), cols, active=active).hidden
        for j, row in zip(part, pool(h_BTD, cols.doc, pooling).cpu(), strict=True):
            out[j] = row
    return out


def batch_tokens(device: torch.device) -> int:
    """Padded tokens in one forward. On CPUs what stays in the caches is quicker than what is large: between 1,024 and 4,096 bases of 3M
    to 135M parameters take the same time, at 8,192 half as much again."""
    return 2048 if device.type == "cpu" else 32768


@torch.no_grad()
def embeddings(base: LoadedBase, texts: Sequence[str], cfg: EmbeddingConfig, active: Active | None) -> Tensor:
    """Vectors of texts as a base that was made for it gives them, fp32 [N, D] on the CPU; long texts are cut to its limit."""
    read = embedding_tokens(base, texts, cfg, base.model.leading(active, 1)[0])
    out: list[Tensor] = [torch.empty(0)] * len(read)
    for part in batches([len(t) for t in read], batch_tokens(base.model.device)):
        rows = text_batch([read[j] for j in part])
        cols = rows.cols.to(base.model.device)
        h_BTD = base.model.hidden(rows.ids_BT.to(base.model.device), cols, active=active).hidden
        for j, row in zip(part, pooled(h_BTD, cols.doc >= 0, cfg).cpu(), strict=True):
            out[j] = row
    return torch.stack(out) if out else torch.empty(0, base.model.trunk.cfg.width)


def embedding_tokens(
    base: LoadedBase, texts: Sequence[str], cfg: EmbeddingConfig, before: int = 0
) -> list[Tokens]:
    """One Tokens a text, as it is read for a vector: framed, long ones cut to the limit, short ones filled up where the config says so; ids
    by number from 0. before: places of the context that an adapter takes. Raises DataError for a text without a token."""
    tok = base.codec.tokenizer
    context = base.model.cfg.text.context - before
    limit = min(cfg.limit or context, context)
    room = max(0, limit - len(tok.framed([])))
    read = [_given(tok.framed(ids[:room]), i) for i, ids in enumerate(tok.encode_batch(list(texts)))]
    if any(not len(t) for t in read):
        raise DataError("a text has no token", "give texts that are not empty")
    if cfg.filled:
        read = [_given(filled_up(base, t.ids.tolist(), limit), i) for i, t in enumerate(read)]
    return read


def filled_up(base: LoadedBase, ids: list[int], limit: int) -> list[int]:
    """The ids with padding tokens behind them, up to `limit`. Raises ArtifactError where the tokenizer has none."""
    pad = base.codec.tokenizer.pad
    if pad is None:
        raise ArtifactError(
            "this base fills its texts up with a padding token, but its tokenizer has none",
            "say which one it is: pad_token in its tokenizer_config.json",
        )
    return ids + [pad] * (limit - len(ids))


def classify_scores(
    base: LoadedBase, cfg: AdapterConfig, name: str, texts: Sequence[str], active: Active | None
) -> tuple[tuple[str, ...], Tensor]:
    """(labels, log-probabilities [N, C]) of texts under an adapter that classifies; of many labels each by itself."""
    if cfg.prompt is not None:
        return tuple(cfg.prompt.answers), answer_scores(base, cfg.prompt, texts)
    assert cfg.head is not None
    if cfg.head.reads != "text":
        raise UserError("the adapter classifies images", "give it files: base.classify_images([...])")
    read = text_tokens(base, texts, before=base.model.leading(active, 1)[0])
    x = features(base, read, cfg.head.pooling, active)
    head = base.model.heads[name]
    assert isinstance(head, Head)
    with torch.no_grad():
        z = head(x.to(head.weight_CP.device)).cpu()
    return cfg.head.labels, F.logsigmoid(z) if cfg.head.gives == "many" else z.log_softmax(-1)


def answer_scores(base: LoadedBase, prompt: PromptConfig, texts: Sequence[str]) -> Tensor:
    """log P(answer | prompt) for each label less its bias, normalised over the labels, [N, C]."""
    tok = base.codec.tokenizer
    heads = [tok.begun(h) for h in tok.encode_batch([prompt.template.replace("{text}", t) for t in texts])]
    tails = tok.encode_batch(list(prompt.answers.values()), follows="text")
    context = base.model.cfg.text.context
    for i, head in enumerate(heads, 1):
        if not head:
            raise DataError(f"row {i} has no token", "give a text or a prompt that is not empty")
        if len(head) + max(map(len, tails)) > context:
            raise DataError(
                f"row {i} has {len(head)} tokens with its prompt, no answer fits in {context}",
                "shorten it",
            )
    if all(len(t) == 1 for t in tails):  # one forward of the prompt serves all answers
        rows = [_given(h, i) for i, h in enumerate(heads)]
        h_ND = features(base, rows, "last", None).to(base.model.device, base.model.compute_dtype)
        with torch.no_grad():
            logp_NC = base.model.text.logits(h_ND).log_softmax(-1)[:, [t[0] for t in tails]].cpu()
    else:
        whole = [[*h, *t] for h in heads for t in tails]
        ends = [len(t) for _ in heads for t in tails]
        sums = [float(torch.as_tensor(x)[-n:].sum()) for n, x in zip(ends, score(base, whole), strict=True)]
        logp_NC = torch.tensor(sums).view(len(texts), len(tails))
    if prompt.bias is not None:
        logp_NC = logp_NC - torch.tensor([prompt.bias[label] for label in prompt.answers])
    return logp_NC.log_softmax(-1)
