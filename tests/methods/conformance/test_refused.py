"""What a kind of base cannot learn is refused before any row is read, with the reason; and what stands before a text on an encoder."""

from dataclasses import replace

import pytest
import torch

from onebase.api.base import Base
from onebase.base.folder import LoadedBase, load_base
from onebase.base.model import BaseModel
from onebase.errors import DataError, UserError
from onebase.methods import prefix, soft
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.tasks.table import METHODS, TASKS
from tests.methods.conformance.cases import LABELLED
from tests.methods.conformance.made import folder

TOLERANCE = 1e-5
WRITING = ("complete", "chat", "prefer", "reinforce", "continue", "distil")
OF_A_DECODER = {"distil": {"teacher": str(folder("decoder"))}}
PAIRS = [(t, m) for t in TASKS for m in METHODS if m in TASKS[t].makers]


@pytest.mark.parametrize(("task", "method"), [p for p in PAIRS if p[0] in WRITING or p[1] == "prompt"])
def test_an_encoder_writes_nothing(task: str, method: str) -> None:
    """Said before the rows are read, which are not there; of a student of a base that writes too."""
    base = Base(load_base(folder("encoder")))
    with pytest.raises(UserError, match="reads in both directions and predicts no next token"):
        base.adapt("none.jsonl", task=task, method=method, **(OF_A_DECODER if task == "distil" else {}))


@pytest.mark.parametrize("given", [{}, {"teacher": str(folder("decoder")), "adapter": "nowhere/at/all"}])
def test_a_teacher_that_is_not_there_is_refused_before_rows_are_read(given: dict[str, str]) -> None:
    with pytest.raises(UserError, match="needs a teacher|nowhere"):
        Base(load_base(folder("encoder"))).adapt("none.jsonl", task="distil", method="lora", distil=given)


def test_a_base_without_a_head_writes_nothing() -> None:
    whole = load_base(folder("decoder"))
    cfg = whole.model.cfg
    text = replace(cfg.text, head=False, tied=False)
    bare = Base(LoadedBase(BaseModel(replace(cfg, codecs={"text": text})), whole.text_codec))
    with pytest.raises(UserError, match="has no language-model head and predicts no tokens: task 'chat'"):
        bare.adapt([], task="chat", method="lora")


@pytest.mark.parametrize(("task", "method"), PAIRS)
def test_a_base_that_sees_alone_learns_classes_alone(task: str, method: str) -> None:
    if TASKS[task].images and not METHODS[method].text:
        return
    with pytest.raises(UserError, match="reads no text, only image"):
        Base(load_base(folder("sees"))).adapt(LABELLED, task=task, method=method)


@pytest.mark.parametrize("method", ["soft", "prefix"])
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_what_stands_before_a_text_counts_in_the_error_of_all_rows(kind: str, method: str) -> None:
    """Rows that fit in the context and not behind the adapter: one error names them all."""
    base = Base(load_base(folder(kind)))
    word = " ".join("abcdefghijklmnopqrstuvwxyz"[:20])
    size = len(base.tokenizer.framed(base.tokenizer.encode(word)))
    rows = [*LABELLED, {"text": word, "label": "ask"}, {"text": word, "label": "tell"}]
    virtual = base.config.text.context - size + 1
    with pytest.raises(DataError) as e:
        base.adapt(rows, task="classify", method=method, virtual=virtual, long="refuse")
    said = f"has {size} tokens, the limit is {size - 1} after the adapter's {virtual} virtual tokens"
    assert f"row 13: {said}" in e.value.cause or f"row 13 {said}" in str(e.value), str(e.value)
    assert "row 14" in str(e.value)
    base.adapt(rows, task="classify", method=method, virtual=virtual - 1, epochs=1)


@pytest.mark.parametrize("method", ["soft", "prefix"])
@torch.no_grad()
def test_on_an_encoder_virtual_tokens_take_the_first_positions(method: str) -> None:
    """A text's learned positions begin behind them, all see all, and padding changes nothing: as by hand."""
    base = load_base(folder("encoder"))
    model, P, ids = base.model, 3, [2, 9, 10, 11, 3]
    inject = (soft if method == "soft" else prefix).inject
    for p in inject(model, "led", torch.tensor([7, 8, 9])):
        p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    lead, stem = model.virtual["led"], model.text.stem
    assert stem.weight is not None and stem.positions is not None and stem.types is not None
    after = stem.weight[torch.tensor(ids)] + stem.positions[P : P + len(ids)] + stem.types[0]
    if method == "soft":
        first = lead.vectors_PD + stem.positions[:P] + stem.types[0]
        hand = model.trunk(torch.cat((first, after))[None], Cols.simple(1, P + len(ids))).hidden[:, P:]
    else:
        cache = model.new_cache(1, P + len(ids))
        cache.extend(Cols.simple(1, P))
        for layer, k_PGH, v_PGH in zip(cache.layers, lead.keys, lead.values, strict=True):
            layer.append(k_PGH.transpose(0, 1)[None], v_PGH.transpose(0, 1)[None])
        hand = model.trunk(after[None], Cols.simple(1, len(ids), start=P), cache=cache).hidden
    rows = torch.tensor([[*ids, 0, 0], [2, 20, 21, 22, 23, 24, 3]])
    cols = Cols.padded(torch.tensor([len(ids), 7]), 7)
    found = model.hidden(rows, cols, routing=AdapterRouting.per_row(["led", None])).hidden
    torch.testing.assert_close(found[:1, : len(ids)], hand, atol=TOLERANCE, rtol=TOLERANCE)
    plain = model.hidden(rows[1:]).hidden
    torch.testing.assert_close(found[1:], plain, atol=TOLERANCE, rtol=TOLERANCE)
