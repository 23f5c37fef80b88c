"""Every row of every epoch is learnt, by every task and method that learns by steps; plan and record say the same as the loop did."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.api.base import Adapter, Base
from onebase.base.folder import LoadedBase, load_base
from onebase.data import RowPlan, TokenSet
from onebase.data.mixed import MixedOrder
from onebase.data.order import ExampleOrder, one_by_one, span, steps_of
from onebase.engine.features import given_tokens
from onebase.modality.text.sample import Tokens
from onebase.objective.base import Batch, Losses, Objective
from onebase.tasks import job
from onebase.train.loop import Job, Result, run
from tests.helpers import taken, tiny_base
from tests.pictures import digits, sighted

WORDS = ("red sun", "blue sea", "grey fog", "green tree")


def text(i: int) -> str:
    return f"{WORDS[i % 4]} {i}"


ROWS: dict[str, Any] = {
    "classify": lambda i: {"text": text(i), "label": "ab"[i % 2]},
    "many": lambda i: {"text": text(i), "labels": [["a"], ["b"], ["a", "b"]][i % 3]},
    "contrast": lambda i: {"text": text(i), "label": "ab"[i % 2]},
    "regress": lambda i: {"text": text(i), "value": i},
    "tag": lambda i: {"text": text(i), "spans": [{"start": 0, "end": 3, "label": "x"}]},
    "complete": lambda i: {"prompt": text(i), "completion": f" yes {i}"},
    "chat": lambda i: {
        "messages": [{"role": "user", "content": text(i)}, {"role": "assistant", "content": f"{i}"}]
    },
    "embed": lambda i: {"anchor": text(i), "positive": f"{text(i)} again"},
    "prefer": lambda i: {"prompt": text(i), "chosen": f" yes {i}", "rejected": " no"},
    "kto": lambda i: {"prompt": text(i), "chosen": f" yes {i}", "rejected": " no"},
    "orpo": lambda i: {"prompt": text(i), "chosen": f" yes {i}", "rejected": " no"},
    "reward": lambda i: {"prompt": text(i), "chosen": f" yes {i}", "rejected": " no"},
    "continue": lambda i: {"text": f"{text(i)} is told of"},
}
TASKS = {"many": "classify", "contrast": "classify", "kto": "prefer", "orpo": "prefer"}
OPTIONS: dict[str, dict[str, Any]] = {
    "contrast": {"contrast": {"first": True}},
    "kto": {"prefer": {"loss": "kto"}},
    "orpo": {"prefer": {"loss": "orpo"}},
}


class Heard:
    """An objective that keeps the ids of what it is asked the loss of."""

    def __init__(self, objective: Objective, ids: list[str]) -> None:
        self._objective, self._ids = objective, ids

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    def losses(self, base: Any, batch: Batch) -> Losses:
        self._ids += batch.ids
        return self._objective.losses(base, batch)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of all texts in the order in which their loss was taken."""
    ids: list[str] = []

    def listening(made: Job) -> Result:
        return run(Job(**{**vars(made), "objective": Heard(made.objective, ids)}))

    monkeypatch.setattr(job, "run", listening)
    return ids


def adapted(kind: str, n: int, method: str, **options: Any) -> Adapter:
    base, rows = Base(tiny_base()), [ROWS[kind](i) for i in range(n)]
    given: dict[str, Any] = taken(method, virtual=2, rank=2) | OPTIONS.get(kind, {}) | options
    task = TASKS.get(kind, kind)
    planned = base.plan_adapt(rows, task=task, method=method, **given)
    made = base.adapt(rows, task=task, method=method, **given)
    assert planned.facts["steps"] == made.record.get("train.steps")
    return made


@pytest.mark.parametrize("method", ["lora", "soft", "prefix", "full"])
@pytest.mark.parametrize("kind", ROWS)
def test_every_row_of_each_epoch_is_learnt_once(kind: str, method: str, heard: list[str]) -> None:
    """31 rows of 16 a step: the last step is shorter, and counts by what it has."""
    made = adapted(kind, 31, method, batch_size=16, epochs=2)
    seen = Counter(heard)
    assert len(seen) == (62 if kind in ("prefer", "kto", "orpo", "reward") else 31)
    assert set(seen.values()) == {2}, seen
    assert made.record.get("data.rows") == 31
    if kind not in ("complete", "chat", "continue"):  # those are packed
        assert made.record.get("train.batch_size") == 62
    if kind in ("classify", "regress", "embed", "reward", "prefer"):
        assert made.record.get("tokens.supervised") == 62


def test_a_shorter_last_step_weighs_its_own_count(heard: list[str]) -> None:
    made = adapted("classify", 31, "lora", batch_size=16, epochs=1)
    assert made.record.get("train.steps") == 2 and made.record.get("train.batch_size") == 31
    assert len(heard) == 31


def test_pictures_too(heard: list[str], tmp_path: Path) -> None:
    rows = [r | {"image": str(tmp_path / r["image"])} for r in digits(tmp_path, 1)]
    made = Base(load_base(sighted(tmp_path / "base"))).adapt(
        rows, task="classify", method="lora", batch_size=4, epochs=1
    )
    assert len(set(heard)) == len(heard) == len(rows) == made.record.get("train.batch_size")


@pytest.mark.parametrize(("n", "more"), [(5, {}), (3, {"parts": 4, "passes": 2}), (7, {"how": "ppo"})])
def test_every_prompt_is_asked_once_an_epoch(n: int, more: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        f"def judge(prompt, completion, row):\n    open({str(tmp_path / 'asked')!r}, 'a').write(prompt + '\\n')\n    return len(completion)\n"
    )
    rows = [{"prompt": f"say {i}"} for i in range(n)]
    reward = {"reward": f"{tmp_path / 'judge.py'}:judge", "group": 2, "max_tokens": 2} | more
    made = Base(tiny_base()).adapt(
        rows, task="reinforce", method="lora", batch_size=2, epochs=2, rank=2, reinforce=reward
    )
    asked = Counter((tmp_path / "asked").read_text().splitlines())
    assert asked == {f"say {i}": 4 for i in range(n)}
    assert made.record.get("reinforce.completions") == 4 * n
    assert made.record.get("train.batch_size") == 4 * n * more.get("passes", 1)


@pytest.mark.parametrize("level", ["classify", "token"])
def test_a_student_reads_every_row(level: str, heard: list[str], tmp_path: Path) -> None:
    base: LoadedBase = tiny_base()
    Base(base).save(tmp_path / "teacher")
    taught: dict[str, Any] = {"teacher": str(tmp_path / "teacher")}
    if level == "classify":
        rows = [ROWS["classify"](i) for i in range(9)]
        Base(base).adapt(rows, task="classify", method="head").save(tmp_path / "a")
        heard.clear()
        taught["adapter"] = str(tmp_path / "a")
    else:
        rows = [ROWS["complete"](i) for i in range(9)]
    Base(base).adapt(rows, task="distil", method="lora", batch_size=4, epochs=2, distil=taught)
    seen = Counter(heard)
    assert len(seen) == 9 and set(seen.values()) == {2}


@settings(max_examples=60)
@given(n=st.integers(1, 40), per_step=st.integers(1, 12), epochs=st.integers(1, 4), least=st.integers(1, 2))
def test_steps_hold_each_row_of_each_epoch_once(n: int, per_step: int, epochs: int, least: int) -> None:
    plan = ExampleOrder(one_by_one(given_tokens([1, 2, i], i) for i in range(n)), per_step, 3, epochs, least)
    found = [int(row[0].id) for step in range(plan.steps) for row in plan.rows(step)]
    assert [sorted(found[i : i + n]) for i in range(0, len(found), n)] == [list(range(n))] * epochs
    assert plan.rows(plan.steps) == []
    sizes = [len(plan.rows(s)) for s in range(plan.steps)]
    assert all(s == per_step for s in sizes[:-1]) and sizes[-1] < per_step + least
    assert sizes[-1] >= min(least, per_step, n * epochs)
    endless = ExampleOrder(plan.examples, per_step, 3)
    assert [r[0].id for r in plan.rows(0)][:per_step] == [r[0].id for r in endless.rows(0)][: sizes[0]]


@settings(max_examples=40)
@given(total=st.integers(1, 300), per_step=st.integers(1, 40), least=st.integers(1, 5))
def test_spans_are_the_whole_stream_in_order(total: int, per_step: int, least: int) -> None:
    steps = steps_of(total, per_step, least)
    assert [i for s in range(steps) for i in span(s, per_step, total, least)] == list(range(total))


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(2, 9), min_size=1, max_size=30),
    per_step=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
)
def test_packed_and_mixed_rows_end_with_the_last_of_the_epochs(
    sizes: list[int], per_step: int, share: float
) -> None:
    def documents(name: str) -> TokenSet:
        return TokenSet.from_tokens(
            [
                Tokens(
                    np.r_[np.int32(1), np.full(n - 1, i + 4, np.int32)], np.ones(n, bool), f"{name}{i}", name
                )
                for i, n in enumerate(sizes)
            ]
        )

    packed = RowPlan(documents("a"), 12, per_step, epochs=2)
    seen = Counter(t.id for s in range(packed.steps) for row in packed.rows(s) for t in row)
    assert seen == {f"a{i}": 2 for i in range(len(sizes))} and packed.rows(packed.steps) == []
    mixed = MixedOrder(
        RowPlan(documents("a"), 12, 1, epochs=2), RowPlan(documents("b"), 12, 1), share, per_step
    )
    rows = [row for s in range(mixed.steps) for row in mixed.rows(s)]
    own = Counter(t.id for row in rows for t in row if t.source == "a")
    assert own == {f"a{i}": 2 for i in range(len(sizes))}
    assert abs(sum(row[0].source == "b" for row in rows) - share * len(rows)) <= 0.5
