"""Predictions of an adapter for texts: classes, numbers, spans and vectors. N texts, T tokens, D width, P pooled features, C outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.head import Head, Pooling
from onebase.engine import image_features as images
from onebase.engine.features import (
    embeddings,
    features,
    pair_tokens,
    refuse_long,
    room_of,
    text_tokens,
    warn_of_cut,
)
from onebase.engine.image_search import text_vectors
from onebase.engine.labels import Label, labelled
from onebase.engine.media_prompts import file_tokens, media_column
from onebase.engine.prompt_tokens import Prompt, answer_tokens, less_prompt
from onebase.engine.prompter import Given
from onebase.engine.prompting import answer_scores, prompter
from onebase.engine.scoring import batch_tokens, batches
from onebase.errors import DataError, UserError
from onebase.methods.bound import Bound
from onebase.methods.folder import Attached
from onebase.methods.spans import Placed, Span, placed, spans_of
from onebase.modality.text.counts import token_counts
from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer
from onebase.model.proj import AdapterRouting
from onebase.objective.padding import whole
from onebase.objective.pooled import text_batch

Answer = str | tuple[Prompt, str]
"""A prompt (a text, or messages) and an answer to it, or only a text."""


@dataclass(frozen=True)
class Ranked:
    """A text with its index in the input, and its relevance to the query: the head's score, larger is better."""

    index: int
    score: float
    text: str


def of_task(bound: Bound, task: str, does: str) -> Attached:
    """The adapter on a base, if it is of this task. Raises UserError for another task or no adapter."""
    if bound.attached is None or bound.attached.task != task:
        raise UserError(
            f"this base has no adapter that {does}",
            f"give --adapter DIR of one, or train it: onebase adapt --task {task} (in Python: adapt, then with_adapter)",
        )
    return bound.attached


def labels(bound: Bound, texts: Sequence[Given]) -> list[Label]:
    """The class of each text, or of each row if a saved prompt has other variables than `text`. Raises UserError without an adapter that
    classifies."""
    on = of_task(bound, "classify", "classifies")
    names, logp_NC = classes(on, list(texts))
    head = on.config.head
    return labelled(names, logp_NC.exp(), multilabel=head is not None and head.gives == "many")


def vectors(bound: Bound, texts: Sequence[str], pooling: Pooling | None = None) -> Tensor:
    """One vector per text, float32 [N, D], as `Base.embed` returns them. The end of a long text is cut off, with a warning."""
    base, on = bound.loaded, bound.attached
    if pooling is None and bound.config.link("pair") is not None:
        return text_vectors(base, list(texts), bound.routing)
    config = (on.config.embedding if on else None) or base.embedding
    if pooling is None and config is not None:
        return embeddings(base, list(texts), config, bound.routing)
    before = base.model.virtual_counts(bound.routing, 1)[0]
    read = text_tokens(base, list(texts), before=before, long="head")
    warn_of_cut(read)
    return features(base, read, pooling or "mean", bound.routing)


def token_states(base: LoadedBase, texts: Sequence[Tokens], routing: AdapterRouting | None) -> list[Tensor]:
    """The hidden state of each token of each text, fp32 [T, D] on the CPU: 4 D bytes per token."""
    return states_of(base, texts, routing, lambda h_BTD: h_BTD.float())


@torch.no_grad()
def states_of(
    base: LoadedBase, texts: Sequence[Tokens], routing: AdapterRouting | None, of: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """`of` applied to the states of each text, [T, ...] on the CPU, in input order; the windows of a text are concatenated. Texts of similar length
    share a batch."""
    device, windows = base.model.device, [part for t in texts for part in t.parts]
    out: list[Tensor] = [torch.empty(0)] * len(windows)
    for part in batches([len(t) for t in windows], batch_tokens(device)):
        read = text_batch([windows[j] for j in part])
        read = read.to(device)
        h_BTD = whole(base.model, read, routing)
        for j, row in zip(part, of(h_BTD).cpu(), strict=True):
            out[j] = row[: len(windows[j])].clone()
    each = iter(out)
    return [torch.cat([next(each) for _ in t.parts]) if t.windows else next(each) for t in texts]


def head_of(on: Attached) -> Head:
    """The head of an adapter that has one."""
    head = on.base.model.heads[on.name]
    assert isinstance(head, Head)
    return head


def _tokens(on: Attached, texts: Sequence[Given]) -> list[Tokens]:
    """Tokens of texts, or of pairs of texts, as the head of an adapter reads them."""
    before, base, head = on.base.model.virtual_counts(on.routing, 1)[0], on.base, on.config.head
    singles = [t for t in texts if isinstance(t, str)]
    pairs = [(t[0], t[1]) for t in texts if isinstance(t, tuple) and len(t) == 2]
    if len(singles) == len(texts):
        read = text_tokens(
            base,
            singles,
            None if head is None else head.limit,
            before,
            "refuse" if head is None else head.long,
        )
    elif len(pairs) == len(texts):
        cut = head is not None and head.long != "refuse"
        limit = head.limit if cut and head is not None else None
        read = pair_tokens(base, pairs, limit, before, cut=cut, typed=head is None or head.typed)
    else:
        raise UserError(
            "rows were given, but only adapters of method prompt take rows",
            "give texts, or pairs of them: (text, text)",
        )
    return read


def _unpadded(text: Tokens, pad: int | None) -> Tokens:
    """The text without `pad` tokens at its end (the first token stays): a head that reads the last state was trained without them."""
    if pad is None or text.windows:
        return text
    kept = 1 + max([0, *(text.ids != pad).nonzero()[0].tolist()])
    types = None if text.types is None else text.types[:kept]
    return replace(text, ids=text.ids[:kept], loss=text.loss[:kept], types=types)


def classes(on: Attached, texts: Sequence[Given]) -> tuple[tuple[str, ...], Tensor]:
    """(labels, log-probabilities [N, C]) of texts under an adapter that classifies; independent probabilities if it is multilabel. Saved prompts
    with other variables take rows instead of texts; an adapter that classifies images or sounds takes files, or rows of them."""
    cfg, base = on.config, on.base
    if cfg.prompt is not None:
        logp_NC = answer_scores(base, cfg.prompt, texts, on.routing, prompter(on).vectors_ED)
        return tuple(cfg.prompt.answers), logp_NC
    assert cfg.head is not None
    if (kind := cfg.head.reads) == "text":
        return classes_of(on, _tokens(on, texts))
    files: list[Any] = [t[kind] if isinstance(t, Mapping) else t for t in texts]
    if media_column(base, (kind,)) is None:
        return images.scores(base, cfg, on.name, files, on.routing)
    return classes_of(on, [file_tokens(base, kind, f) for f in files])


@torch.no_grad()
def classes_of(on: Attached, texts: Sequence[Tokens]) -> tuple[tuple[str, ...], Tensor]:
    """`classes` of tokenised texts, by a head."""
    cfg = on.config.head
    assert cfg is not None
    warn_of_cut(texts)
    read = [_unpadded(t, cfg.pad) for t in texts]
    x_NP = features(on.base, read, cfg.pooling, on.routing)
    head = head_of(on)
    counts_NV = token_counts(read, len(head.counts_VC)) if head.counts_VC is not None else None
    z_NC = head(x_NP.to(head.weight_CP.device), counts_NV).cpu()
    # In fp64: in fp32 every probability above 1 - 6e-8 is 1, and ranking scores would treat them as ties.
    z_NC = z_NC.double()
    return cfg.labels, F.logsigmoid(z_NC) if cfg.gives == "many" else z_NC.log_softmax(-1)


def values(on: Attached, texts: Sequence[str]) -> list[float]:
    """The number of each text, in the units of the training data."""
    return numbers(on, _tokens(on, texts))


def rewards(on: Attached, answers: Sequence[Answer]) -> list[float]:
    """The reward of each answer, from an adapter that was trained on pairs; only differences are meaningful. Raises DataError for an answer beyond
    the context."""
    base, head = on.base, on.config.head
    assert head is not None
    read = []
    context = base.model.cfg.text.context - base.model.virtual_counts(on.routing, 1)[0]
    limit = min(head.limit or context, context)
    for i, item in enumerate(answers, 1):
        prompt, answer = ("", item) if isinstance(item, str) else item
        read.append(less_prompt(answer_tokens(base, prompt, answer, name=str(i)), limit, head.long))
        if len(read[-1]) > context:
            raise DataError(
                f"answer {i} has {len(read[-1])} tokens with its prompt, the limit is {context}",
                "shorten it (to cut the beginning of long prompts, train the adapter with -o long=tail)",
            )
    return numbers(on, read)


@torch.no_grad()
def numbers(on: Attached, read: Sequence[Tokens]) -> list[float]:
    """The output for each text of a head with one output."""
    cfg, base = on.config.head, on.base
    assert cfg is not None
    if not read:
        return []
    warn_of_cut(read)
    head, read = head_of(on), [_unpadded(t, cfg.pad) for t in read]
    z_N1 = head(features(base, read, cfg.pooling, on.routing).to(head.weight_CP.device))
    z_N = cfg.mean + cfg.scale * z_N1[:, 0].cpu().double()
    return (z_N.sigmoid() if cfg.sigmoid else z_N).tolist()


def spans(on: Attached, texts: Sequence[str]) -> list[list[Span]]:
    """The spans of each text, in their order. Raises DataError for a text that is empty, or beyond the context."""
    head, before = on.config.head, on.base.model.virtual_counts(on.routing, 1)[0]
    assert head is not None
    limit, tokenizer = room_of(on.base, head.limit, before), on.base.codec.tokenizer
    read = [placed(tokenizer, text, str(i), limit, head.long) for i, text in enumerate(texts)]
    refuse_long(on.base, read, before=before)
    return spans_in(on, texts, read)


def spans_in(on: Attached, texts: Sequence[str], read: Sequence[Placed]) -> list[list[Span]]:
    """`spans` of tokenised texts."""
    cfg, tokenizer = on.config.head, on.base.codec.tokenizer
    assert cfg is not None
    warn_of_cut(read)
    out = []
    tags = states_of(on.base, read, on.routing, _likeliest(head_of(on), cfg.tag_numbers))
    for text, tokens, tags_T in zip(texts, read, tags, strict=True):
        text_tags = unframed(tags_T, tokens, tokenizer).tolist()
        out.append(spans_of(text_tags, tokens.places, cfg.labels, text))
    return out


def unframed(x_T: Tensor, text: Tokens, tokenizer: Tokenizer) -> Tensor:
    """Values per token of a text, without those of the special tokens around the text or around each of its windows."""
    before, around = len(tokenizer.begun([])), len(tokenizer.framed([]))
    each = torch.split(x_T, list(text.windows) or [len(x_T)])
    return torch.cat([x[before : before + len(x) - around] for x in each])


def _likeliest(head: Head, tags: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A function from states to the most likely tag of each token. tags: the tag number of each output."""
    return lambda h_BTD: torch.tensor(tags, device=h_BTD.device)[head(h_BTD).argmax(-1)]


def query_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The problem of a row with a query and candidate texts, and the remedy; None if it is valid."""
    texts = row["texts"]
    if not isinstance(row["query"], str):
        return f"'query' is {row['query']!r:.60}, a text is expected", "fix the row"
    if isinstance(texts, (list, tuple)) and texts and all(isinstance(t, str) and t.strip() for t in texts):
        return None
    return f"'texts' is {texts!r:.60}, a list of texts is expected", 'for example ["one text", "another"]'


def scored(on: Attached, both: Sequence[tuple[str, str]]) -> list[float]:
    """The score of each pair: how well the second text answers the first. In a pair beyond the limit, the longer text is cut at its end."""
    head, before = on.config.head, on.base.model.virtual_counts(on.routing, 1)[0]
    assert head is not None
    return numbers(on, pair_tokens(on.base, both, head.limit, before, cut=True, typed=head.typed))


def ranked(on: Attached, query: str, texts: Sequence[str], top: int | None = None) -> list[Ranked]:
    """The texts by relevance to the query, the best first; only the `top` best, if given. Raises UserError."""
    if (bad := query_problem({"query": query, "texts": texts})) is not None:
        raise UserError(bad[0], "give a query and a list of texts")
    if top is not None and top < 1:
        raise UserError(f"top is {top}", "give at least 1, or omit it for all")
    scores = scored(on, [(query, t) for t in texts])
    order = sorted(range(len(texts)), key=lambda i: -scores[i])
    return [Ranked(i, scores[i], texts[i]) for i in order[:top]]
