"""Uses saved prompts: applies them to inputs, and computes the probabilities of answers.

N texts, E stored examples, C answers, D width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.engine.features import features, given_tokens
from onebase.engine.prompter import Given, Prompted, Prompter, checked, texts_of
from onebase.engine.scoring import score
from onebase.errors import DataError, UserError
from onebase.methods import prompt as saved
from onebase.methods.folder import Attached
from onebase.methods.prompt import PromptConfig
from onebase.modality.text.sample import Message
from onebase.model.proj import AdapterRouting
from onebase.objective.pooled import mean_of_windows


def prompter(on: Attached) -> Prompter:
    """The saved prompt of an adapter that has one."""
    assert on.config.prompt is not None
    vectors_ED = saved.tensors(on.base.model, on.name).get(saved.KEY)
    before = on.base.model.virtual_counts(on.routing, 1)[0]
    return Prompter(on.base, on.config.prompt, None if vectors_ED is None else vectors_ED.cpu(), before)


def prompted(
    on: Attached | None, given: str | Sequence[Message], variables: Mapping[str, Any] | None = None
) -> Prompted:
    """Apply the saved prompt of an adapter to a text or a conversation; unchanged if it has none.

    Raises UserError for unknown variables, and for a saved prompt of another task; DataError for a variable without a value.
    """
    if on is None or on.config.prompt is None or on.config.prompt.answers:
        if variables:
            raise UserError(
                f"variables are given ({', '.join(sorted(variables))}), but the base has no saved prompt",
                "attach an adapter of method prompt, or leave them out",
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
            problem = "was given twice" if "text" in values else "is not a variable of the prompt"
            raise UserError(
                f"a text {problem}", "give it once" if "text" in values else "give only variables"
            )
        return prompter(on).texts([checked(cfg, values)])[0]
    messages: Any = given
    if not isinstance(messages, Sequence) or not all(isinstance(m, Mapping) for m in messages):
        return Prompted(messages)  # the chat template raises for malformed messages
    return prompter(on).talk(messages, checked(cfg, values))


def columns(on: Attached | None) -> tuple[str, ...]:
    """The columns that an adapter which classifies texts reads."""
    cfg = on.config.prompt if on is not None else None
    return ("text",) if cfg is None else cfg.variables


def inputs(on: Attached | None, rows: Sequence[Mapping[str, Any]]) -> list[Given]:
    """Rows as inputs of `Base.classify`: texts, pairs of texts (rows with `text_pair`), or whole rows if a saved prompt has other variables."""
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
    """log P(answer | prompt) for each label minus its bias, normalised over the labels, [N, C]."""
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
    """`answer_scores` of filled prompts."""
    tok = base.codec.tokenizer
    heads = [tok.begun(h) for h in tok.encode_batch(list(forms))]
    tails = tok.encode_batch(list(prompt.answers.values()), follows="text")
    context = base.model.cfg.text.context - base.model.virtual_counts(routing, 1)[0]
    for i, head in enumerate(heads, 1):
        if not head:
            raise DataError(f"row {i} has no tokens", "give a text or a prompt that is not empty")
        if len(head) + max(map(len, tails)) > context:
            raise DataError(
                f"row {i} has {len(head)} tokens with its prompt, and no answer fits in the context of {context}",
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
