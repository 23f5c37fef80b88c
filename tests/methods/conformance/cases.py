"""What is learnt on which kind of base: each method with its variants, over the tasks there are."""

from pathlib import Path
from typing import Any

ASKED = [
    (t, k)
    for t, k in [("Is it so", "ask"), ("It is so", "tell"), ("What is it", "ask"), ("Go on", "tell")] * 3
]
LABELLED = [{"text": t, "label": k} for t, k in ASKED]
MANY = [{"text": t, "labels": [k, "any"][: 1 + i % 2]} for i, (t, k) in enumerate(ASKED)]
VALUES = [{"text": t, "value": i} for i, (t, _) in enumerate(ASKED)]
SPANS = [{"text": t, "spans": [{"start": 0, "end": 2, "label": k}]} for t, k in ASKED]
PAIRS = [
    {"prompt": "def add", "completion": "(a, b)"},
    {"prompt": "The quick", "completion": " brown fox"},
] * 8
CHATS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}] * 16
CHOSEN = [r | {"chosen": r["completion"], "rejected": " no"} for r in PAIRS]
FOUND = [
    {"anchor": f"Is it {w}?", "positive": f"Yes, it is {w}."}
    for w in ["so", "a", "dog", "brown", "add", "fox", "lazy", "x"]
]

WORDS = [{"prompt": f"say {w}:"} for w in ("so", "a", "dog", "fox", "add", "it", "x", "go")]
JUDGED: dict[str, Any] = {
    "task": "reinforce",
    "data": WORDS,
    "lr": 1e-2,
    "reinforce": {"reward": f"{Path(__file__).parent / 'judge.py'}:vowels", "group": 4, "max_tokens": 3},
}
TEXTS = [{"text": t * 4} for t, _ in ASKED]
WRITER, SORTER = {"teacher": "writer"}, {"teacher": "writer", "adapter": "sorter"}
"""Of a teacher the names, in the place of its folders: see `made.teacher`."""

LORA = {"method": "lora", "rank": 2}
DORA = LORA | {"dora": True}
RANKS = {"method": "lora", "rslora": True, "ranks": {"text.1.*": 3, "q": 1}}
SOFT, PREFIX = {"method": "soft", "virtual": 4}, {"method": "prefix", "virtual": 3}
FULL, HEAD = {"method": "full"}, {"method": "head"}

CLASSIFY: dict[str, dict[str, Any]] = {
    f"classify-{name}": {"task": "classify", "data": LABELLED, **method}
    for name, method in {
        "head": HEAD,
        "lora": LORA,
        "dora": DORA,
        "ranks": RANKS,
        "soft": SOFT,
        "prefix": PREFIX,
        "full": FULL,
    }.items()
}
DECODER: dict[str, dict[str, Any]] = {
    "classify-prompt": {
        "task": "classify",
        "method": "prompt",
        "data": [],
        "answers": {"ask": "?", "tell": "."},
    },
    "classify-shots": {
        "task": "classify",
        "method": "prompt",
        "data": LABELLED,
        "answers": {"ask": "?", "tell": "."},
        "shots": {"n": 2},
    },
    "complete-prompt": {"task": "complete", "method": "prompt", "data": PAIRS, "shots": {"n": 1}},
    "chat-prompt": {"task": "chat", "method": "prompt", "data": [], "prompt": "You are {who}."},
    "complete-lora": {"task": "complete", "data": PAIRS, **LORA},
    "complete-ends": {"task": "complete", "data": PAIRS, **LORA, "sites": ["q", "embedding", "lm_head"]},
    "complete-dora": {"task": "complete", "data": PAIRS, **DORA},
    "complete-soft": {"task": "complete", "data": PAIRS, **SOFT},
    "complete-prefix": {"task": "complete", "data": PAIRS, **PREFIX},
    "complete-full": {"task": "complete", "data": PAIRS, **FULL},
    "chat-lora": {"task": "chat", "data": CHATS, **LORA, "sites": ["q", "v"]},
    "chat-ranks": {"task": "chat", "data": CHATS, **RANKS},
    "chat-prefix": {"task": "chat", "data": CHATS, **PREFIX, "soft_text": "Yes."},
    **{
        k: CLASSIFY[f"classify-{k.split('-')[1]}"]
        for k in ("classify-head", "classify-lora", "classify-full")
    },
    "many-head": {"task": "classify", "data": MANY, **HEAD},
    "many-lora": {"task": "classify", "data": MANY, **LORA},
    "regress-soft": {"task": "regress", "data": VALUES, **SOFT},
    "tag-lora": {"task": "tag", "data": SPANS, **LORA},
    "tag-prefix": {"task": "tag", "data": SPANS, **PREFIX},
    "prefer-lora": {"task": "prefer", "data": CHOSEN, **LORA},
    "prefer-full": {"task": "prefer", "data": CHOSEN, **FULL},
    "reward-lora": {"task": "reward", "data": CHOSEN, **LORA},
    "continue-lora": {"task": "continue", "data": [{"text": r["prompt"] * 20} for r in PAIRS], **LORA},
    "embed-soft": {"task": "embed", "data": FOUND, **SOFT},
    "embed-full": {"task": "embed", "data": FOUND, **FULL},
    "reinforce-lora": {**JUDGED, **LORA},
    "reinforce-prefix": {**JUDGED, **PREFIX},
    "reinforce-full": {**JUDGED, **FULL, "lr": 1e-3},
    "distil-lora": {"task": "distil", "data": TEXTS, "distil": WRITER, **LORA},
    "distil-full": {"task": "distil", "data": PAIRS, "distil": WRITER, **FULL},
    "distil-soft": {"task": "distil", "data": TEXTS, "distil": SORTER, **SOFT},
}
ENCODER: dict[str, dict[str, Any]] = {
    **CLASSIFY,
    "many-full": {"task": "classify", "data": MANY, **FULL},
    "regress-lora": {"task": "regress", "data": VALUES, **LORA},
    "tag-head": {"task": "tag", "data": SPANS, **HEAD},
    "tag-soft": {"task": "tag", "data": SPANS, **SOFT},
    "embed-lora": {"task": "embed", "data": FOUND, **LORA},
    "embed-prefix": {"task": "embed", "data": FOUND, **PREFIX},
    "distil-lora": {"task": "distil", "data": TEXTS, "distil": SORTER, **LORA},
}
PICTURES = ["a", "b", "c", "d"] * 3
"""Names of files that `made` writes, see `pictures`."""
SEES: dict[str, dict[str, Any]] = {
    f"classify-{name}": {"task": "classify", "data": PICTURES, **method}
    for name, method in {"head": HEAD, "lora": LORA, "dora": DORA, "full": FULL}.items()
}
BOTH: dict[str, dict[str, Any]] = {
    **{f"sees-{name}": case for name, case in SEES.items() if name != "classify-dora"},
    **{f"reads-{k}": CLASSIFY[k] for k in ("classify-lora", "classify-full")},
    "reads-some": CLASSIFY["classify-lora"] | {"sites": ["attn.q", "text.1.*"]},
}
PLUGGED = {
    k: DECODER[k]
    for k in (
        "classify-head",
        "complete-lora",
        "complete-dora",
        "complete-soft",
        "complete-prefix",
        "complete-full",
    )
}
"""On a base with a modality of another package."""

CASES: dict[str, dict[str, Any]] = {
    **{f"decoder {name}": case for name, case in DECODER.items()},
    **{f"encoder {name}": case for name, case in ENCODER.items()},
    **{f"sees {name}": case for name, case in SEES.items()},
    **{f"both {name}": case for name, case in BOTH.items()},
    **{f"series {name}": case for name, case in PLUGGED.items()},
}
STEPS = {"batch_size": 4, "epochs": 2}
"""Few steps, but enough to be stopped between two."""
STOPPED = [
    *(f"decoder complete-{m}" for m in ("lora", "ends", "dora", "soft", "prefix", "full")),
    *(f"decoder {x}" for x in ("many-lora", "tag-prefix", "embed-soft", "distil-full", "distil-soft")),
    *(f"decoder reinforce-{m}" for m in ("lora", "full")),
    *(f"encoder {x}" for x in ("classify-prefix", "regress-lora", "tag-soft", "embed-lora", "classify-full")),
    *(f"sees classify-{m}" for m in ("lora", "full")),
    "series complete-lora",
]
"""Each method and each objective once."""
