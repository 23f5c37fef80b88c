"""Saved prompts at work: what is read in the place of what was given, and the probability of answers.

N texts, E stored examples, C answers, D width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.codec.text.sample import Message
from onebase.engine.features import features, given_tokens
from onebase.engine.prompter import Given, Prompted, Prompter, checked, texts_of
from onebase.engine.scoring import score
from onebase.errors import DataError, UserError
from onebase.methods import prompt as saved
from onebase.methods.folder import Attached
from onebase.methods.prompt import PromptConfig
from onebase.model.proj import AdapterRouting
from onebase.objective.pooled import mean_of_windows


def prompter(on: Attached) -> Prompter:
    """The saved prompt of an adapter that has one."""
    assert on.config.prompt is not None
    found = saved.tensors(on.base.model, on.name).get(saved.KEY)
    before = on.base.model.virtual_counts(on.routing, 1)[0]
    return Prompter(on.base, on.config.prompt, None if found is None else found.cpu(), before)


def prompted(
    on: Attached | None, given: str | Sequence[Message], variables: Mapping[str, Any] | None = None
) -> Prompted:
    """What a base with this adapter reads for a text or a conversation: the same, where no saved prompt is on it.

    Raises UserError for variables that nobody asks for, and for a saved prompt of another task; DataError for a variable without a value.
    """
    if on is None or on.config.prompt is None or on.config.prompt.answers:
        if variables:
            raise UserError(
                f"variables ({', '.join(sorted(variables))}) without a saved prompt that has them",
                "put an adapter of method prompt on the base, or leave them out",
            )
        return Prompted(given)
    cfg = on.config.prompt
    if cfg.chat == isinstance(given, str):
        raise UserError(
            f"the saved prompt is for {on.task}",
            "use chat (base.chat, onebase chat, /v1/chat/completions)"
            if cfg.chat
            else "use generate (base.generate, onebase generate, /v1/completions)",
        )
    values = texts_of(variables or {})
    if unknown := sorted(values.keys() - set(cfg.variables)):
        has = f"its variables: {', '.join(cfg.variables)}" if cfg.variables else "it has none"
        raise UserError(f"the prompt has no variable {', '.join(map(repr, unknown))}", has)
    if not cfg.chat:
        if "text" in cfg.variables and "text" not in values:
            values["text"] = str(given)
        elif given:
            said = "was given twice" if "text" in values else "has no place in the prompt"
            raise UserError(f"a text {said}", "give it once" if "text" in values else "give variables alone")
        return prompter(on).texts([checked(cfg, values)])[0]
    messages: Any = given
    if not isinstance(messages, Sequence) or not all(isinstance(m, Mapping) for m in messages):
        return Prompted(messages)  # who reads it says what is wrong
    return prompter(on).talk(messages, checked(cfg, values))


def columns(on: Attached | None) -> tuple[str, ...]:
    """The columns of a row that an adapter which sorts texts reads."""
    cfg = on.config.prompt if on is not None else None
    return ("text",) if cfg is None else cfg.variables


def inputs(on: Attached | None, rows: Sequence[Mapping[str, Any]]) -> list[Given]:
    """What of rows `Base.classify` is given: texts (of rows that have a `text_pair` the two), or whole rows where a saved prompt has other
    variables."""
    if columns(on) != ("text",):
        return list(rows)
    if on is not None and on.config.head is not None and on.config.head.pairs and "text_pair" in rows[0]:
        return [(str(r["text"]), str(r.get("text_pair"))) for r in rows]
    return [str(r["text"]) for r in rows]


def answer_scores(
    base: LoadedBase,
    prompt: PromptConfig,
    texts: Sequence[Given],
    routing: AdapterRouting | None = None,
    vectors_ED: Tensor | None = None,
) -> Tensor:
    """log P(answer | prompt) for each label less its bias, normalised over the labels, [N, C]."""
    rows = [checked(prompt, t, f"row {i}: ") for i, t in enumerate(texts, 1)]
    before = base.model.virtual_counts(routing, 1)[0]
    prompter = Prompter(base, prompt, vectors_ED, before)
    windows, text_W = prompter.windows(rows)
    logp_WC = scores_of(base, prompt, [p.read for p in prompter.texts(windows)], routing)
    if len(windows) == len(rows):
        return logp_WC
    return mean_of_windows(logp_WC, torch.tensor(text_W), "mean").log_softmax(-1)


def scores_of(
    base: LoadedBase, prompt: PromptConfig, forms: Sequence[str], routing: AdapterRouting | None = None
) -> Tensor:
    """`answer_scores` of whole prompts."""
    tok = base.codec.tokenizer
    heads = [tok.begun(h) for h in tok.encode_batch(list(forms))]
    tails = tok.encode_batch(list(prompt.answers.values()), follows="text")
    context = base.model.cfg.text.context - base.model.virtual_counts(routing, 1)[0]
    for i, head in enumerate(heads, 1):
        if not head:
            raise DataError(f"row {i} has no token", "give a text or a prompt that is not empty")
        if len(head) + max(map(len, tails)) > context:
            raise DataError(
                f"row {i} has {len(head)} tokens with its prompt, no answer fits in {context}",
                "shorten it",
            )
    if all(len(t) == 1 for t in tails):  # one forward of the prompt serves all answers
        rows = [given_tokens(h, i) for i, h in enumerate(heads)]
        h_ND = features(base, rows, "last", routing).to(base.model.device, base.model.compute_dtype)
        with torch.no_grad():
            logp_NC = base.model.text.logits(h_ND, routing).log_softmax(-1)[:, [t[0] for t in tails]].cpu()
    else:
        whole = [[*h, *t] for h in heads for t in tails]
        ends = [len(t) for _ in heads for t in tails]
        each = (torch.as_tensor(x)[-n:] for n, x in zip(ends, score(base, whole, routing), strict=True))
        sums = [float(x.mean() if prompt.mean else x.sum()) for x in each]
        logp_NC = torch.tensor(sums).view(len(forms), len(tails))
    if prompt.bias is not None:
        logp_NC = logp_NC - torch.tensor([prompt.bias[label] for label in prompt.answers])
    return logp_NC.log_softmax(-1)
