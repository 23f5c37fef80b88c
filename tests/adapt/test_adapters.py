"""One conformance suite for every method: only the adapter is saved, the base is untouched, another base is refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.adapt import lora
from onebase.api.base import Adapter, Base
from onebase.base.folder import base_tensors, load_base, save_base
from onebase.errors import ArtifactError, ConfigError, DataError, UserError
from onebase.model.proj import Active
from tests.helpers import tiny_base

LABELLED = [
    {"text": t, "label": k}
    for t, k in [("Is it so", "ask"), ("It is so", "tell"), ("What is it", "ask"), ("Go on", "tell")] * 3
]
PAIRS = [
    {"prompt": "def add", "completion": "(a, b)"},
    {"prompt": "The quick", "completion": " brown fox"},
] * 4
CHATS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}] * 6

TEXT_PAIRS = [
    {"anchor": f"Is it {w}?", "positive": f"Yes, it is {w}."} for w in ("so", "a dog", "brown", "add")
]

MANY = [{"text": r["text"], "labels": [r["label"], "any"][: 1 + i % 2]} for i, r in enumerate(LABELLED)]
VALUES = [{"text": r["text"], "value": i} for i, r in enumerate(LABELLED)]
SPANS = [{"text": r["text"], "spans": [{"start": 0, "end": 2, "label": r["label"]}]} for r in LABELLED]

CASES: dict[str, dict[str, Any]] = {
    "classify-prompt": {
        "data": [],
        "task": "classify",
        "method": "prompt",
        "answers": {"ask": "?", "tell": "."},
    },
    "classify-head": {"data": LABELLED, "task": "classify", "method": "head"},
    "classify-lora": {"data": LABELLED, "task": "classify", "method": "lora"},
    "classify-full": {"data": LABELLED, "task": "classify", "method": "full"},
    **{f"many-{m}": {"data": MANY, "task": "classify", "method": m} for m in ("head", "lora", "full")},
    **{f"regress-{m}": {"data": VALUES, "task": "regress", "method": m} for m in ("head", "lora", "full")},
    **{f"tag-{m}": {"data": SPANS, "task": "tag", "method": m} for m in ("head", "lora", "full")},
    "regress-soft": {"data": VALUES, "task": "regress", "method": "soft", "virtual": 4},
    "tag-prefix": {"data": SPANS, "task": "tag", "method": "prefix", "virtual": 4},
    "complete-lora": {"data": PAIRS, "task": "complete", "method": "lora", "rank": 2},
    "complete-dora": {"data": PAIRS, "task": "complete", "method": "lora", "rank": 2, "dora": True},
    "chat-ranks": {
        "data": CHATS,
        "task": "chat",
        "method": "lora",
        "rslora": True,
        "ranks": {"text.1.*": 3, "q": 1},
    },
    "complete-full": {"data": PAIRS, "task": "complete", "method": "full"},
    "chat-lora": {"data": CHATS, "task": "chat", "method": "lora", "sites": ["q", "v"]},
    "classify-soft": {"data": LABELLED, "task": "classify", "method": "soft", "virtual": 4},
    "complete-soft": {"data": PAIRS, "task": "complete", "method": "soft", "virtual": 5},
    "chat-soft": {"data": CHATS, "task": "chat", "method": "soft", "virtual": 3, "soft_text": "Yes."},
    "classify-prefix": {"data": LABELLED, "task": "classify", "method": "prefix", "virtual": 4},
    "complete-prefix": {"data": PAIRS, "task": "complete", "method": "prefix", "virtual": 5},
    "chat-prefix": {"data": CHATS, "task": "chat", "method": "prefix", "virtual": 3, "soft_text": "Yes."},
    "chat-full": {"data": CHATS, "task": "chat", "method": "full"},
    "embed-lora": {"data": TEXT_PAIRS, "task": "embed", "method": "lora"},
    "embed-soft": {"data": TEXT_PAIRS, "task": "embed", "method": "soft", "virtual": 4},
    "embed-prefix": {"data": TEXT_PAIRS, "task": "embed", "method": "prefix", "virtual": 4},
    "embed-full": {"data": TEXT_PAIRS, "task": "embed", "method": "full"},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base())
    return path


def answer(base: Base) -> Any:
    """What an adapter is for: classes, vectors, or logits of text."""
    if base.attached is not None and base.attached.task == "classify":
        return [tuple(x.scores.items()) for x in base.classify(["Is it", "Yes it is"])]
    if base.attached is not None and base.attached.task == "regress":
        return base.predict(["Is it", "Yes it is"])
    if base.attached is not None and base.attached.task == "tag":
        head = base.loaded.model.heads[base.attached.name]
        ids = torch.tensor([base.tokenizer.encode("Is it so", bos=True)])
        states = base.loaded.model.hidden(ids, active=base.attached.active).hidden
        return base.tag(["Is it", "Yes it is"]), head(
            states
        ).tolist()  # spans alone would hide small differences
    if base.attached is not None and base.attached.task == "embed":
        return base.embed(["Is it", "Yes it is"])
    return base.logits(base.tokenizer.encode("def add(a, b)", bos=True))


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("case", CASES)
def test_conformance(case: str, saved: Path, tmp_path: Path) -> None:
    options = dict(CASES[case])
    base = Base(load_base(saved))
    plain = base.logits([1, 2, 3])
    adapter = base.adapt(options.pop("data"), **options)
    assert torch.equal(base.logits([1, 2, 3]), plain), "adapting left a trace in the base"
    assert not base.loaded.model.heads

    adapted = base.with_adapter(adapter)
    before = answer(adapted)
    assert torch.equal(base.logits([1, 2, 3]), plain), "an attached adapter changed the plain base"
    folder = adapter.save(tmp_path / "adapter")
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["adapter.json", "adapter.safetensors", "manifest.json", "record.json"]
    again = Base(load_base(saved)).with_adapter(folder)
    assert same(answer(again), before), "saved and loaded answers differently"
    assert Adapter.load(folder).fingerprint == adapter.fingerprint
    parent = adapter.record.parents[0]
    assert parent["fingerprint"] == base.fingerprint
    if options["method"] == "lora":
        assert adapter.bytes < sum(t.numel() * 4 for t in base_tensors(base.loaded.model).values()) / 2


@pytest.mark.parametrize("case", CASES)
def test_another_base_is_refused(case: str, saved: Path) -> None:
    """One flipped bit in one weight, on disk or in memory, and the adapter does not fit."""
    options = dict(CASES[case])
    base = Base(load_base(saved))
    adapter = base.adapt(options.pop("data"), **options)
    other = load_base(saved)
    with torch.no_grad():
        other.model.trunk.blocks[1].ff.up.weight[0, 0] += 1e-6
    with pytest.raises(ArtifactError, match="other weights"):
        Base(other).with_adapter(adapter)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merged_is_unmerged(dtype: torch.dtype, tied: bool) -> None:
    base = Base(tiny_base(tied=tied))
    adapter = base.adapt(CHATS, task="chat", method="lora", rank=3, epochs=5)
    on, ids = base.with_adapter(adapter), base.loaded.codec.chat_ids(CHATS[0]["messages"])
    plain = base.logits(ids)
    assert not torch.equal(plain, on.logits(ids))
    merged = on.merged()
    assert merged.fingerprint != base.fingerprint
    assert {p["kind"] for p in merged.record.parents} == {"base", "adapter"}
    torch.testing.assert_close(merged.logits(ids), on.logits(ids), atol=1e-5, rtol=1e-5)
    assert torch.equal(base.logits(ids), plain), "merging changed the base"
    assert not merged.config.text.tied, "one matrix cannot hold the rows of both ends"
    assert base.config.text.tied == tied == bool(merged.record.get("untied"))
    if dtype == torch.float64:  # a merge is exact up to rounding: in fp64 the two agree far closer
        model = copy.deepcopy(on.loaded.model).double()
        model.compute_dtype = dtype
        one = model.logits(torch.tensor([ids]), on.active)
        lora.merge(model, on._attached.name)  # type: ignore[union-attr]
        torch.testing.assert_close(model.logits(torch.tensor([ids])), one, atol=1e-12, rtol=1e-12)


def test_adapters_act_on_their_rows_only(saved: Path) -> None:
    base = Base(load_base(saved))
    a = base.with_adapter(base.adapt(CHATS, task="chat", method="lora", seed=1), "a")
    b = base.with_adapter(base.adapt(PAIRS, task="complete", method="lora", seed=2, epochs=9), "b")
    ids = base.loaded.codec.chat_ids(CHATS[0]["messages"])
    names = [a._attached.name, None, b._attached.name]  # type: ignore[union-attr]
    with torch.no_grad():
        mixed = base.loaded.model.logits(torch.tensor([ids] * 3), Active.per_row(names))
    for row, one in zip(mixed, (a, base, b), strict=True):
        torch.testing.assert_close(row, one.logits(ids), atol=1e-5, rtol=1e-5)


def test_rows_of_tokens_are_those_of_the_data(saved: Path) -> None:
    base = Base(load_base(saved))
    names = base.tokenizer.specials
    for case, wanted in [
        ("chat-lora", {"<|user|>", "<|assistant|>", "<|end|>"}),
        ("complete-lora", {"<|eos|>"}),
        ("classify-lora", set()),
    ]:
        options = dict(CASES[case])
        parts = base.adapt(options.pop("data"), **options).parts
        assert parts.config.lora is not None
        assert set(parts.config.lora.tokens) == {names[n] for n in wanted}
        rows = parts.tensors.get("text.head.rows")
        assert (rows is None) == (not wanted)
        assert rows is None or (len(rows) == len(wanted) and (rows != 0).any(1).all())


def test_tokens_that_do_not_fit_are_refused(saved: Path) -> None:
    base = load_base(saved)
    with pytest.raises(ConfigError, match="different ids"):
        lora.LoraConfig(tokens=(3, 3))
    with pytest.raises(ConfigError, match="token 999 is not in this base"):
        lora.inject(base.model, "x", lora.LoraConfig(tokens=(999,)))
    cfg = lora.LoraConfig(tokens=(3, 4))
    lora.inject(base.model, "x", cfg)
    found = lora.tensors(base.model, "x")
    lora.remove(base.model, "x")
    with pytest.raises(ConfigError, match=r"text\.head\.rows"):
        lora.put(base.model, "x", cfg, {k: t for k, t in found.items() if k != "text.head.rows"})
    assert not base.model.text.deltas, "a refused adapter left its rows behind"


def test_user_mistakes(saved: Path) -> None:
    base = Base(load_base(saved))
    for wrong, error, says in [
        ({"task": "classify", "method": "magic"}, UserError, "prompt, head, lora"),
        ({"task": "complete", "method": "head"}, UserError, "it writes no text"),
        ({"task": "sing", "method": "lora"}, UserError, "classify"),
        ({"task": "classify", "method": "lora", "rnak": 3}, ConfigError, "rank"),
        ({"task": "classify", "method": "lora", "sites": ["gate"]}, ConfigError, "gate"),
        ({"task": "complete", "method": "lora"}, DataError, "prompt"),
        ({"task": "classify", "method": "prompt"}, UserError, "answers"),
    ]:
        with pytest.raises(error) as e:
            base.adapt(LABELLED, **wrong)  # type: ignore[arg-type]
        assert says in str(e.value)
    with pytest.raises(DataError, match="all 3 rows have the label 'a'"):
        base.adapt([{"text": "x", "label": "a"}] * 3, task="classify", method="head")
    with pytest.raises(DataError, match="row 2 has"):
        base.adapt(
            [{"text": "x", "label": "a"}, {"text": "x y " * 100, "label": "b"}],
            task="classify",
            method="head",
        )
    with pytest.raises(DataError, match="the limit is"):
        base.adapt([{"prompt": "x y " * 100, "completion": "b"}], task="complete", method="lora")
    with pytest.raises(UserError, match="no adapter that classifies"):
        base.classify(["x"])
