"""Merging in exact numbers, the rows of tokens, and what is refused. What every method holds on every kind of base: `conformance`."""

import copy
from pathlib import Path

import pytest
import torch

from onebase.api.base import Base
from onebase.base.folder import load_base, save_base
from onebase.errors import ConfigError, DataError, UserError
from onebase.methods import lora
from onebase.methods.merge import merge
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


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base())
    return path


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
        one = model.logits(torch.tensor([ids]), on.routing)
        merge(model, [(lora.METHOD, on._attached.name)])  # type: ignore[union-attr]
        torch.testing.assert_close(model.logits(torch.tensor([ids])), one, atol=1e-12, rtol=1e-12)


def test_rows_of_tokens_are_those_of_the_data(saved: Path) -> None:
    base = Base(load_base(saved))
    names = base.tokenizer.specials
    for task, data, wanted in [
        ("chat", CHATS, {"<|user|>", "<|assistant|>", "<|end|>"}),
        ("complete", PAIRS, {"<|eos|>"}),
        ("classify", LABELLED, set()),
    ]:
        parts = base.adapt(data, task=task, method="lora", epochs=1).parts
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
        ({"task": "complete", "method": "head"}, UserError, "a head predicts labels, not text"),
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
            long="refuse",
        )
    with pytest.raises(DataError, match="the limit is"):
        base.adapt([{"prompt": "x y " * 100, "completion": "b"}], task="complete", method="lora")
    with pytest.raises(UserError, match="no adapter that classifies"):
        base.classify(["x"])
