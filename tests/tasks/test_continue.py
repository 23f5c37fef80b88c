"""Task continue: a base reads on in a domain, general text is replayed in its share, and what was forgotten is said."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.api.base import Base
from onebase.base.folder import base_tensors, save_base
from onebase.data import RowPlan, TokenSet
from onebase.data.mixed import MixedOrder
from onebase.errors import DataError, UserError
from onebase.tasks.continued import document_tokens
from tests.helpers import LINES, taken, tiny_base
from tests.pretrained import onebase as command

DOMAIN = [{"text": f"The moon number {i} goes round planet {i % 7}. " * (1 + i % 4)} for i in range(48)]
TRAIN, TEST = DOMAIN[:40], DOMAIN[40:]
GENERAL = [{"text": LINES[i % 4] * (1 + i % 3) + str(i)} for i in range(30)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> str:
    return jsonl(tmp_path_factory.mktemp("general") / "general.jsonl", GENERAL)


@pytest.mark.parametrize(("method", "lr"), [("lora", 5e-3), ("full", 3e-3), ("soft", 5e-3), ("prefix", 5e-3)])
def test_the_domain_becomes_likelier_and_the_record_says_what_it_cost(
    method: str, lr: float, general: str
) -> None:
    base = Base(tiny_base())
    before = {k: t.clone() for k, t in base_tensors(base.loaded.model).items()}
    replay = {"data": general, "share": 0.25, "test": general}
    adapter = base.adapt(
        TRAIN,
        task="continue",
        method=method,
        lr=lr,
        epochs=4,
        batch_size=4,
        replay=replay,
        test=TEST,
        **taken(method, virtual=4),
    )
    assert all(torch.equal(t, before[k]) for k, t in base_tensors(base.loaded.model).items())
    record = adapter.record
    assert adapter.task == "continue"
    by = record.get("tokens.by_source")
    assert by["general"] / sum(by.values()) == pytest.approx(0.25, abs=0.04)
    assert record.get("replay.data.rows") == len(GENERAL)
    on = base.with_adapter(adapter)
    rows = [*TEST, *({**r, "source": "general"} for r in GENERAL)]
    scores = onebase.evaluate(on, rows)
    for name in ("domain_bits_per_byte_before", "domain_bits_per_byte", "domain_change", "forgetting"):
        said = record.get(f"scores.{name}")
        assert said["value"] == pytest.approx(scores[name].value, rel=1e-4, abs=1e-4), name
        assert said["low"] <= said["value"] <= said["high"]
    alone = onebase.evaluate(base, TEST, task="text")["bits_per_byte"].value
    assert scores["domain_bits_per_byte_before"].value == pytest.approx(alone, rel=1e-5)
    assert scores["domain_change"].high < 0, "the domain is no likelier"
    change = scores["general_bits_per_byte"].value - scores["general_bits_per_byte_before"].value
    assert scores["forgetting"].value == pytest.approx(change, abs=1e-6)
    assert on.generate("The moon", max_tokens=4) != ""


def test_rows_from_python_replay_as_their_file_does_and_the_record_has_their_hash(general: str) -> None:
    options: dict[str, Any] = {
        "task": "continue",
        "method": "lora",
        "epochs": 1,
        "batch_size": 4,
        "test": TEST,
    }
    base = Base(tiny_base())
    file = base.adapt(TRAIN, **options, replay={"data": general, "test": general})
    rows = base.adapt(TRAIN, **options, replay={"data": GENERAL, "test": tuple(GENERAL)})
    assert rows.fingerprint == file.fingerprint
    for name in ("replay.data.fingerprint", "replay.data.rows", "scores.forgetting", "scores.general_text"):
        assert rows.record.get(name) == file.record.get(name), name
    kept = {"rows": len(GENERAL), "fingerprint": file.record.get("replay.data.fingerprint")}
    said = rows.record.get("config.options")["replay"]
    assert said == {"data": kept, "share": 0.1, "test": kept}
    assert file.record.get("config.options")["replay"]["data"] == general
    plan = base.plan_adapt(TRAIN, **options, replay={"data": GENERAL})
    assert plan.facts["steps"] == rows.record.get("train.steps")


def test_replay_keeps_what_was_known(general: str) -> None:
    """A base that knows its general text forgets less of it where it is replayed."""
    loaded = tiny_base()
    base = Base(loaded)
    known = base.with_adapter(
        base.adapt(GENERAL, task="continue", method="full", lr=1e-2, epochs=12, batch_size=4)
    )
    base = known.merged()
    lost = {}
    for name, replay in (("without", {}), ("with", {"data": general, "share": 0.5})):
        adapter = base.adapt(
            TRAIN,
            task="continue",
            method="full",
            lr=5e-3,
            epochs=6,
            batch_size=4,
            replay={**replay, "test": general},
            test=TEST,
        )
        lost[name] = adapter.record.get("scores.forgetting")
    assert lost["without"]["low"] > 0, "nothing was forgotten: the test says nothing"
    assert lost["with"]["high"] < lost["without"]["low"]


def test_without_general_text_the_reference_is_scored() -> None:
    base = Base(tiny_base())
    record = base.adapt(TRAIN, task="continue", method="lora", epochs=1, test=TEST).record
    assert "Python language reference" in record.get("scores.general_text")
    assert record.get("scores.forgetting")["n"] >= 1
    assert record.get("tokens.by_source") is None, "one source needs no table"
    plain = base.adapt(TRAIN, task="continue", method="lora", epochs=1).record
    assert plain.get("scores.forgetting") is None


def test_rows_are_mixed_by_the_share_and_by_the_step_alone() -> None:
    base = tiny_base()
    plans = []
    for source, texts in (("domain", TRAIN), ("general", GENERAL)):
        plans.append(RowPlan(TokenSet.from_tokens(document_tokens(base, texts, source)), 64, 1))
    mixed = MixedOrder(plans[0], plans[1], 0.3, 8)
    steps = [mixed.rows(i) for i in range(25)]
    counts = [Counter(row[0].source for row in step) for step in steps]
    assert all(len(step) == 8 and 2 <= c["general"] <= 3 for step, c in zip(steps, counts, strict=True))
    assert sum(c["general"] for c in counts) == 60
    again = MixedOrder(plans[0], plans[1], 0.3, 8)
    for step in (17, 3):
        assert [[p.id for p in r] for r in again.rows(step)] == [[p.id for p in r] for r in steps[step]]
    domain = [p.id for step in steps for r in step for p in r if p.source == "domain"]
    first = [p.id for i in range(plans[0].rows_per_epoch) for r in plans[0].rows(i) for p in r]
    assert domain[: len(first)] == first, "rows of the domain are left out"
    others = [
        MixedOrder(plans[0], plans[1], 0.2, 8),
        MixedOrder(plans[1], plans[0], 0.3, 8),
        MixedOrder(*plans, 0.3, 4),
    ]
    assert len({mixed.digest, *(o.digest for o in others)}) == 4


def test_long_documents_are_cut_and_all_of_them_is_read(tmp_path: Path) -> None:
    """A folder of text files, one longer than the context: every token of it once an epoch."""
    base = Base(tiny_base())
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.py").write_text("def add(a, b):\n    return a + b\n" * 40, encoding="utf-8")
    (tmp_path / "texts" / "b.txt").write_text("The moon.\n", encoding="utf-8")
    adapter = base.adapt(tmp_path / "texts", task="continue", method="lora", epochs=4, batch_size=1)
    record = adapter.record
    assert record.get("data.rows") == 2
    assert record.get("data.tokens") > 64 * 4
    assert record.get("tokens.read") == pytest.approx(4 * record.get("data.tokens"), rel=0.1)
    single = base.adapt(tmp_path / "texts" / "a.py", task="continue", method="prefix", virtual=4, epochs=1)
    assert single.record.get("data.rows") == 1


def test_a_plan_and_a_merge(general: str) -> None:
    base = Base(tiny_base())
    options: dict[str, Any] = {"batch_size": 4, "epochs": 2, "replay": {"data": general}}
    plan = base.plan_adapt(TRAIN, task="continue", method="lora", **options)
    adapter = base.adapt(TRAIN, task="continue", method="lora", **options)
    assert plan.facts["steps"] == adapter.record.get("train.steps")
    assert plan.facts["tokens"] == pytest.approx(adapter.record.get("tokens.read"), rel=0.15)
    on = base.with_adapter(adapter)
    ids = base.tokenizer.encode("The moon", bos=True)
    torch.testing.assert_close(on.merged().logits(ids), on.logits(ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("data", "options", "error", "says"),
    [
        ([{"text": "a"}, {"text": " "}], {}, DataError, "row 2: 'text' is empty"),
        ([{"body": "a"}], {}, DataError, "text"),
        (TRAIN, {"method": "head"}, UserError, "task 'continue' cannot use method 'head'"),
        (TRAIN, {"max_length": 65}, UserError, "'max_length' is 65, the context is 64"),
        (TRAIN, {"replay": {"share": 1.0}}, UserError, "replay.share"),
        (TRAIN, {"replay": {"dta": "x"}}, UserError, "data"),
        (TRAIN, {"replay": {"data": "none.jsonl"}}, DataError, "no such file"),
        (TRAIN, {"replay": {"data": 3}}, UserError, "replay.data"),
        (TRAIN, {"replay": {"data": [{"text": "a"}, {"body": "b"}]}}, DataError, "replay.data row 2"),
        (TRAIN, {"replay": {"data": []}}, DataError, "no rows"),
        (TRAIN, {"replay": {"test": [{"text": 3}]}, "test": TEST}, DataError, "replay.test row 1"),
        (TRAIN, {"test": [TRAIN[3]]}, DataError, "test-in-train"),
    ],
)
def test_what_cannot_be_read_is_refused(data: Any, options: dict[str, Any], error: Any, says: str) -> None:
    base = Base(tiny_base())
    with pytest.raises(error, match=says):
        base.adapt(data, **{"task": "continue", "method": "lora", **options})


def test_scores_name_a_source_that_is_not_known() -> None:
    with pytest.raises(DataError, match="row 2 has the source 'other'"):
        onebase.evaluate(Base(tiny_base()), [TEST[0], {**TEST[1], "source": "other"}], task="continue")


def test_the_commands(tmp_path: Path, general: str) -> None:
    save_base(tmp_path / "base", tiny_base())
    train, test = (jsonl(tmp_path / f"{n}.jsonl", rows) for n, rows in (("train", TRAIN), ("test", TEST)))
    words = ["--task", "continue", "--method", "lora", "-o", f"replay.data={general}", "-o", "epochs=2"]
    said = command(
        "adapt", tmp_path / "base", "--data", train, "--test", test, *words, "--out", tmp_path / "a"
    )
    assert said.status == 0, said.err
    assert "tokens supervised" in said.out
    scored = command("eval", tmp_path / "base", "--adapter", tmp_path / "a", "--data", test, "--json")
    assert scored.status == 0, scored.err
    assert json.loads(scored.out).keys() == {
        "domain_bits_per_byte_before",
        "domain_bits_per_byte",
        "domain_change",
    }


def test_a_text_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"notes\.md does not exist"):
        Base(tiny_base()).adapt(tmp_path / "notes.md", task="continue", method="lora")
