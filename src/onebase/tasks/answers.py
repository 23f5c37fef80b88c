"""What an adapter says of texts: classes, numbers, and spans. N texts, T tokens, D width, P pooled features, C outputs."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.adapt.folder import Attached
from onebase.adapt.head import Head
from onebase.adapt.spans import Placed, Span, placed, spans_of
from onebase.base.folder import LoadedBase
from onebase.codec.text.sample import Tokens
from onebase.engine.features import features, refuse_long, text_tokens
from onebase.engine.scoring import batch_tokens, batches
from onebase.errors import DataError, UserError
from onebase.model.proj import Active
from onebase.objective.pooled import text_batch
from onebase.tasks.preferences import Prompt, answer_tokens
from onebase.tasks.prompting import Given, answer_scores, prompter

Answer = str | tuple[Prompt, str]
"""A prompt (a text, or messages) and an answer to it, or a text alone."""


def token_states(base: LoadedBase, texts: Sequence[Tokens], active: Active | None) -> list[Tensor]:
    """The hidden state of each token of each text, fp32 [T, D] on the CPU: 4 D bytes a token."""
    return _each(base, texts, active, lambda h_BTD: h_BTD.float())


@torch.no_grad()
def _each(
    base: LoadedBase, texts: Sequence[Tokens], active: Active | None, of: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """`of` the states of each text, [T, ...] on the CPU, in the order given. Texts of like length share a batch."""
    device = base.model.device
    out: list[Tensor] = [torch.empty(0)] * len(texts)
    for part in batches([len(t) for t in texts], batch_tokens(device)):
        read = text_batch([texts[j] for j in part])
        h_BTD = base.model.hidden(read.ids_BT.to(device), read.cols.to(device), active=active).hidden
        for j, row in zip(part, of(h_BTD).cpu(), strict=True):
            out[j] = row[: len(texts[j])].clone()
    return out


def _head(on: Attached) -> Head:
    head = on.base.model.heads[on.name]
    assert isinstance(head, Head)
    return head


def classes(on: Attached, texts: Sequence[Given]) -> tuple[tuple[str, ...], Tensor]:
    """(labels, log-probabilities [N, C]) of texts under an adapter that classifies; of many labels each by itself. Rows in the place of texts
    are for saved prompts with other variables."""
    cfg, base = on.config, on.base
    if cfg.prompt is not None:
        found = answer_scores(base, cfg.prompt, texts, on.active, prompter(on).vectors_ED)
        return tuple(cfg.prompt.answers), found
    assert cfg.head is not None
    if cfg.head.reads != "text":
        raise UserError("the adapter classifies images", "give it files: base.classify_images([...])")
    if not all(isinstance(t, str) for t in texts):
        raise UserError("rows are for adapters of method prompt, this one reads texts", "give texts")
    return classes_of(
        on, text_tokens(base, [str(t) for t in texts], before=base.model.leading(on.active, 1)[0])
    )


@torch.no_grad()
def classes_of(on: Attached, texts: Sequence[Tokens]) -> tuple[tuple[str, ...], Tensor]:
    """`classes` of texts as the base reads them, by a head."""
    cfg = on.config.head
    assert cfg is not None
    x_NP = features(on.base, texts, cfg.pooling, on.active)
    head = _head(on)
    z_NC = head(x_NP.to(head.weight_CP.device)).cpu()
    # In fp64: in fp32 all that is surer than 1 - 6e-8 is 1, and scores that order texts would call them equal.
    z_NC = z_NC.double()
    return cfg.labels, F.logsigmoid(z_NC) if cfg.gives == "many" else z_NC.log_softmax(-1)


def values(on: Attached, texts: Sequence[str]) -> list[float]:
    """The number of each text, in the units of the data that the adapter learnt from."""
    return values_of(on, text_tokens(on.base, texts, before=on.base.model.leading(on.active, 1)[0]))


def rewards(on: Attached, answers: Sequence[Answer]) -> list[float]:
    """How good each answer is, as the adapter learnt it from pairs; only differences mean something. Raises DataError for one beyond the
    context."""
    base = on.base
    read = []
    room = base.model.cfg.text.context - base.model.leading(on.active, 1)[0]
    for i, item in enumerate(answers, 1):
        prompt, answer = ("", item) if isinstance(item, str) else item
        read.append(answer_tokens(base, prompt, answer, name=str(i)))
        if len(read[-1]) > room:
            raise DataError(
                f"answer {i} has {len(read[-1])} tokens with its prompt, the base reads {room}", "shorten it"
            )
    return values_of(on, read)


@torch.no_grad()
def values_of(on: Attached, read: Sequence[Tokens]) -> list[float]:
    """`values` of texts, or `rewards` of answers, as the base reads them."""
    cfg, base = on.config.head, on.base
    assert cfg is not None
    if not read:
        return []
    head = _head(on)
    z_N1 = head(features(base, read, cfg.pooling, on.active).to(head.weight_CP.device))
    return (cfg.mean + cfg.scale * z_N1[:, 0].cpu().double()).tolist()


def spans(on: Attached, texts: Sequence[str]) -> list[list[Span]]:
    """The spans of each text, in its order. Raises DataError for one that is empty, or beyond the context."""
    read = [placed(on.base.codec.tokenizer, text, str(i)) for i, text in enumerate(texts)]
    refuse_long(on.base, read, before=on.base.model.leading(on.active, 1)[0])
    return spans_in(on, texts, read)


def spans_in(on: Attached, texts: Sequence[str], read: Sequence[Placed]) -> list[list[Span]]:
    """`spans` of texts as the base reads them."""
    cfg, first = on.config.head, len(on.base.codec.tokenizer.begun([]))
    assert cfg is not None
    out = []
    tags = _each(on.base, read, on.active, _likeliest(_head(on)))
    for text, found, tags_T in zip(texts, read, tags, strict=True):
        own = tags_T[first : first + len(found.places)].tolist()
        out.append(spans_of(own, found.places, cfg.labels, text))
    return out


def _likeliest(head: Head) -> Callable[[Tensor], Tensor]:
    return lambda h_BTD: head(h_BTD).argmax(-1)
