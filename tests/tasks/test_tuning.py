"""Trials over rate and rank: judged on rows of the training data alone, recorded, and the adapter learnt on all rows."""

import json
from pathlib import Path
from typing import Any

import pytest

import onebase
from onebase.api.base import Base
from onebase.base.folder import load_base, save_base
from onebase.data import read_rows
from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import Score
from onebase.methods.table import METHODS
from onebase.tasks import tune
from onebase.tasks.tune import SPAN, TrialSetting, chosen, settings, split
from tests.helpers import tiny_base
from tests.pretrained import onebase as command

ROWS = [
    {"text": f"{start} {i}", "label": label}
    for i in range(8)
    for start, label in (("Is it so", "ask"), ("It is so", "tell"), ("What is", "ask"), ("Go on", "tell"))
]
FEW: dict[str, Any] = {"epochs": 1, "seed": 3}


TUNED = METHODS["lora"].tuned
RANKS = TUNED["rank"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base())
    return path


def test_the_first_setting_is_the_methods_own_and_the_others_are_drawn_by_seed() -> None:
    first = TrialSetting(1e-3, {"rank": 8})
    drawn = settings(first, 12, 0, TUNED)
    assert drawn[0] == first and drawn == settings(first, 12, 0, TUNED) != settings(first, 12, 1, TUNED)
    assert all(1e-3 / SPAN <= s.lr <= 1e-3 * SPAN and s.own["rank"] in RANKS for s in drawn)
    assert {s.own["rank"] for s in drawn[1:]} == set(RANKS)
    lower = sum(s.lr < 1e-3 for s in drawn[1:])
    assert 4 <= lower <= 7, "spread evenly on a logarithmic scale"
    assert all(not s.own for s in settings(TrialSetting(1e-3, {}), 4, 0, {}))


def test_the_split_keeps_equal_texts_together_and_each_label_on_the_learning_side() -> None:
    doubled: list[dict[str, Any]] = [{**r, "n": n} for r in ROWS for n in range(2)] + [
        {"text": "alone", "label": "rare"}
    ]
    rows = read_rows(doubled, ("text", "label"))
    for seed in range(5):
        learnt, held = split(rows, seed)
        assert len(learnt) + len(held) == len(rows)
        assert not {r["text"] for r in learnt} & {r["text"] for r in held}
        assert {r["label"] for r in learnt} == {"ask", "tell", "rare"}
        assert [sum(r["label"] == x for r in held) for x in ("ask", "tell", "rare")] == [8, 8, 0]
    assert split(rows, 0)[1] != split(rows, 1)[1]
    with pytest.raises(DataError, match="too few to hold some out"):
        split(read_rows(ROWS[:8], ("text", "label")), 0)
    with pytest.raises(DataError, match=r"30 rows \(2 different\)"):
        split(read_rows(ROWS[:2] * 15, ("text", "label")), 0)


def test_another_setting_is_taken_only_beyond_the_noise() -> None:
    def score(value: float, name: str = "accuracy", wide: float = 0.1) -> Score:
        return Score(name, value, value - wide, value + wide, 40)

    assert chosen([score(0.5), score(0.58), score(0.3)]) == 0
    assert chosen([score(0.5), score(0.65), score(0.7)]) == 2
    assert chosen([score(0.5, "mae"), score(0.3, "mae"), score(0.9, "mae")], lower=True) == 1
    assert chosen([score(float("nan")), score(0.2), None]) == 1
    assert chosen([None, None]) == 0


def test_the_record_has_every_trial_and_the_adapter_learns_all_rows(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Base(load_base(saved))
    seen: list[int] = []
    real = tune.prepared

    def counted(*given: Any, **options: Any) -> Any:
        job, make = real(*given, **options)
        return job, lambda j: seen.append(len(j.rows)) or make(j)

    monkeypatch.setattr(tune, "prepared", counted)  # the real one runs: only the rows are counted
    before = base.loaded.reread()
    adapter = base.tune(ROWS, task="classify", method="lora", trials=3, test=[{"text": "new"}], **FEW)
    record = adapter.parts.record
    assert seen == [32, 24, 24, 24, 32]  # the plan, three trials, and the adapter
    trials = record.get("tune.trials")
    assert [t["score"] for t in trials] == ["accuracy"] * 3 and all(t["n"] == 8 for t in trials)
    assert trials[0]["lr"] == 1e-3 and trials[0]["rank"] == 8
    taken = trials[record.get("tune.chosen")["trial"] - 1]
    assert record.get("config.options")["lr"] == taken["lr"]
    assert record.get("tune.split")["rows"] == 8 and record.get("tune.split")["seed"] == 3
    assert record.get("data.rows") == 32
    assert base.loaded.reread() == before and not base.loaded.model.heads, (
        "nothing of a trial stays on the base"
    )
    again = base.tune(ROWS, task="classify", method="lora", trials=3, **FEW).parts.record
    assert again.get("tune.trials") == trials and again.get("tune.split") == record.get("tune.split")


def test_other_tasks_are_judged_by_their_scores(saved: Path) -> None:
    base = Base(load_base(saved))
    rows = [{"text": f"{'much ' * n}of it {i}", "value": n} for i in range(8) for n in (0, 1, 2)]
    trials = base.tune(rows, task="regress", method="lora", trials=2, **FEW).parts.record.get("tune.trials")
    assert [t["score"] for t in trials] == ["mae", "mae"]


def test_a_test_row_among_the_training_rows_is_refused_before_any_trial(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tune.prepared

    def watched(*given: Any, **options: Any) -> Any:
        job, make = real(*given, **options)
        return job, lambda j: make(j) if len(j.rows) == len(ROWS) else pytest.fail("a trial began")

    monkeypatch.setattr(tune, "prepared", watched)  # the plan is made of all rows, a trial of some
    base = Base(load_base(saved))
    for row in ROWS[::9]:  # on either side of the split
        with pytest.raises(UserError, match="test"):
            base.tune(ROWS, task="classify", method="lora", trials=2, test=[row], **FEW)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"trials": 1}, "1 trials cannot be compared"),
        ({"method": "head"}, "has no learning rate or rank to tune"),
        ({"task": "tag", "method": "prompt"}, "has no learning rate or rank to tune"),
        ({"task": "reinforce"}, "cannot be tuned"),
        ({"ranks": 3}, "ranks"),
    ],
)
def test_what_cannot_be_tuned(saved: Path, more: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"task": "classify", "method": "lora", "trials": 2, **more}
    with pytest.raises(UserError, match=says):
        Base(load_base(saved)).tune(ROWS, **asked)


def test_the_command(saved: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    words = ("adapt", saved, "--data", data, "--method", "lora", "--tune", "2", "-o", "epochs=1")
    plan = command(*words, "--dry-run")
    assert plan.status == 0 and "tuning        2 trials (lr 0.001, rank 8; lr " in plan.out, plan.err
    done = command(*words, "--out", tmp_path / "out")
    assert done.status == 0 and "trial 2 of 2: lr " in done.err + done.out, done.err
    assert len(onebase.load(saved).with_adapter(tmp_path / "out").attached.record.get("tune.trials")) == 2  # type: ignore[union-attr]
    refused = command(*words, "--out", tmp_path / "other", "--resume", tmp_path / "state")
    assert refused.status == 1 and "trials save no checkpoints" in refused.err
