"""Origins are true: whatever makes an artifact, each origin of its record is one of the list, and exactly what was given is said to be given."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import onebase
from onebase.api.base import Adapter, Base
from onebase.artifact.record import Origin, Record
from onebase.assess.auditing import audit
from onebase.base.folder import save_base
from onebase.config import load
from onebase.data import Document, prepare
from onebase.pretraining.recipe import Recipe, origins
from onebase.pretraining.run import run_recipe
from onebase.tasks.options import read_options
from onebase.tasks.table import TASKS
from tests.helpers import tiny_base
from tests.pretrained import onebase as command
from tests.tasks.test_work_once import ROWS

GIVEN = (Origin.USER, Origin.RECIPE)
SAYS: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 8,
    "lr": 1e-3,
    "micro_batch": 4,
    "max_length": 60,
    "seed": 1,
    "date": "2026-01-01",
    "rank": 2,
    "alpha": 4.0,
    "sites": ["q"],
    "pooling": "last",
    "contrast": {"temperature": 0.2},
    "prefer": {"beta": 0.2},
    "virtual": 2,
}
"""Values of options that differ from the defaults or not; each task and method takes some."""


def leaves(record: Record, field: str) -> Iterator[tuple[str, str]]:
    """Each value below a field by its path, and its origin."""

    def walk(path: str, value: Any) -> Iterator[str]:
        if isinstance(value, dict) and value:
            for k, v in value.items():
                yield from walk(f"{path}.{k}", v)
        else:
            yield path

    for e in record.events:
        if e.field == field or e.field.startswith(f"{field}."):
            yield from ((p.removeprefix(f"{field}."), e.origin) for p in walk(e.field, e.value))


def flat(tree: dict[str, Any], path: str = "") -> set[str]:
    out = set()
    for k, v in tree.items():
        out |= flat(v, f"{path}{k}.") if isinstance(v, dict) else {f"{path}{k}"}
    return out


def check(record: Record) -> None:
    """Every origin is of the list; what nobody gave is no statement of anybody."""
    assert record.events
    for e in record.events:
        assert Origin.of(e.origin) is not None, (e.field, e.origin)


def stated(record: Record, field: str = "config.options") -> set[str]:
    return {path for path, origin in leaves(record, field) if Origin.of(origin) in GIVEN}


def of(kind: str) -> list[dict[str, Any]]:
    return [ROWS[kind](i) for i in range(8)]


def takes(task: str, method: str) -> list[str]:
    """The options of `SAYS` that a task takes with a method."""
    out = []
    for name, value in SAYS.items():
        try:
            read_options({name: value}, task, method)
        except onebase.UserError:
            continue
        out.append(name)
    return out


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize(
    ("task", "method"), [("classify", "head"), ("classify", "lora"), ("complete", "soft")]
)
def test_exactly_the_options_that_were_given_are_stated(task: str, method: str, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(takes(task, method))))
    options = {k: v for k, v in SAYS.items() if k in chosen}
    made = Base(tiny_base(depth=1)).adapt(of(task), task=task, method=method, **options)
    check(made.record)
    assert stated(made.record) == flat(options)
    date = dict(leaves(made.record, "config.options"))["date"]
    assert Origin.of(date) == (Origin.USER if "date" in chosen else Origin.SYSTEM)
    kept = made.record.get("config.options")
    assert all(kept[k] == v for k, v in options.items() if not isinstance(v, dict))
    for field in ("task", "method"):
        event = made.record.event(field)
        assert event is not None and event.origin == Origin.USER


PAIRS = [
    (name, method)
    for name, task in TASKS.items()
    for method in task.makers
    if name in ROWS and method in ("head", "lora", "prompt") and not (method == "prompt" and name == "chat")
]


@pytest.mark.parametrize(("task", "method"), PAIRS)
def test_origins_of_every_task(task: str, method: str) -> None:
    options: dict[str, Any] = {} if method != "lora" else {"epochs": 1, "rank": 2}
    if task == "reinforce":
        options["reinforce"] = {"reward": "format:[a-z ]*", "max_tokens": 2, "group": 2}
    if task == "distil":
        pytest.skip("a teacher is an adapter of another folder: tests/tasks/test_distil.py")
    if method == "prompt":
        options["answers"] = {"red": " a", "blue": " b", "grey": " c", "green": " d"}
        if task != "classify":
            pytest.skip("a prompt that writes is a template alone")
    rows = of(task)
    made = Base(tiny_base()).adapt(rows, task=task, method=method, **options)
    check(made.record)
    assert stated(made.record) == flat(options)


def test_what_the_command_line_defaulted_is_a_default(tmp_path: Path) -> None:
    save_base(tmp_path / "base", tiny_base())
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "{w} {i}", "label": "{w}"}}\n' for i in range(9) for w in "ab"))
    words = ["adapt", tmp_path / "base", "--data", rows, "-o", "epochs=1"]
    for more, wanted in (([], (Origin.DEFAULT,) * 2), (["--method", "head"], (Origin.DEFAULT, Origin.USER))):
        out = tmp_path / f"adapter{len(more)}"
        said = command(*words, *more, "--out", out)
        assert said.status == 0, said.err
        record = Record.load(out)
        assert tuple(e.origin for f in ("task", "method") if (e := record.event(f))) == wanted
        assert stated(record) == {"epochs"}


def test_trials_choose_what_they_choose() -> None:
    rows = [{"text": f"{w} {i}", "label": w} for i in range(16) for w in ("yes", "no")]
    made = Base(tiny_base()).tune(rows, task="classify", method="lora", trials=2, epochs=1, rank=2)
    check(made.record)
    found = dict(leaves(made.record, "config.options"))
    assert Origin.of(found["lr"]) == Origin.CHOSEN and found["epochs"] == Origin.USER
    assert found["batch_size"] == Origin.DEFAULT


RECIPE = """
name: tiny
data: {{sources: [{{name: a.b, kind: jsonl, path: {path}, licence: CC0-1.0}}, {{name: b, kind: jsonl, path: {path2}}}], holdout: 0.3}}
tokenizer: {{train_bytes: 100000}}
model: {{width: 32, depth: 1, head_dim: 16, vocab_size: 300, context: 64}}
train: {{steps: 2, batch_size: 2, sequence_length: 64, dtype: fp32}}
"""


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for name in ("a", "b"):
        (folder / f"{name}.jsonl").write_text(
            "".join(f'{{"text": "{name} {i} is a text of some length, is it not?"}}\n' for i in range(60))
        )
    (folder / "tiny.yaml").write_text(RECIPE.format(path=folder / "a.jsonl", path2=folder / "b.jsonl"))
    run_recipe(load(Recipe, folder / "tiny.yaml", ["train.clip=2.0"]), folder / "run")
    return folder / "run"


def test_a_recipe_states_what_it_says_and_the_rest_is_default(pretrained: Path) -> None:
    record = Record.load(pretrained / "base")
    check(record)
    found = dict(leaves(record, "config.recipe"))
    assert found["train.clip"] == Origin.USER and found["train.steps"] == Origin.RECIPE
    assert found["train.seed"] == Origin.DEFAULT and found["data.sources.1.licence"] == Origin.DEFAULT
    recipe = {"name", "data.holdout", "tokenizer.train_bytes"}
    recipe |= {f"model.{k}" for k in ("width", "depth", "head_dim", "vocab_size", "context")}
    recipe |= {f"train.{k}" for k in ("steps", "batch_size", "sequence_length", "dtype")}
    recipe |= {f"data.sources.{i}.{k}" for i in (0, 1) for k in ("name", "kind", "path")}
    assert {k for k, o in found.items() if o == Origin.RECIPE} == recipe | {"data.sources.0.licence"}
    assert record.get("config.recipe")["data"]["sources"][0]["licence"] == "CC0-1.0"
    licences = record.event("data.licences")
    assert licences is not None and licences.value == {"a.b": "CC0-1.0", "b": None}
    assert licences.origin == Origin.RECIPE
    data = Record.load(pretrained / "data")
    check(data)
    assert [data.event(k).origin for k in ("holdout", "seed")] == [Origin.RECIPE, Origin.DEFAULT]  # type: ignore[union-attr]
    assert [data.event(f"sources.{s}.licence").origin[:9] for s in ("a.b", "b")] == ["stated in", "not known"]  # type: ignore[union-attr]


def test_a_recipe_of_python_states_what_is_not_the_default(pretrained: Path) -> None:
    recipe = load(Recipe, pretrained.parent / "tiny.yaml")
    mine = replace(recipe, train=replace(recipe.train, seed=3))  # no file says this one
    found = {p: origins(mine)(p) for p in (("train", "seed"), ("train", "clip"), ("name",))}
    assert found == {
        ("train", "seed"): Origin.USER,
        ("train", "clip"): Origin.DEFAULT,
        ("name",): Origin.USER,
    }


def test_prepared_data(tmp_path: Path) -> None:
    documents = [Document(f"text {i}", "s", "MIT") for i in range(20)]
    for i, (more, wanted) in enumerate(
        (({}, [Origin.DEFAULT] * 2), ({"seed": 0, "holdout": 0.5}, [Origin.USER] * 2))
    ):
        record = prepare(documents, tmp_path / str(i), **more).record
        check(record)
        assert [record.event(k).origin for k in ("seed", "holdout")] == wanted  # type: ignore[union-attr]
        assert record.event("sources.s.licence").origin == Origin.USER  # type: ignore[union-attr]


def lora(seed: int) -> Adapter:
    return Base(tiny_base()).adapt(
        of("complete"), task="complete", method="lora", epochs=1, rank=2, seed=seed
    )


def test_what_is_made_of_bases_and_adapters(tmp_path: Path) -> None:
    base = Base(tiny_base())
    base.record.add("licence", "MIT", Origin.USER)
    one, two = lora(0), lora(1)
    merged = base.with_adapter(one).merged()
    made = [merged, onebase.combine([one, two]), base.quantize(8, head=None), base.student(1)]
    for each in made:
        check(each.record)
    assert {m.record.get("licence") for m in made if isinstance(m, Base)} == {"MIT"}
    combined, quantised = made[1].record, made[2].record
    assert not stated(combined, "combined")
    assert stated(quantised, "config.storage") == {"bits", "head"}
    given = onebase.combine([one, two], [0.5, 0.5], how="ties", density=0.2, rank=2).record
    assert stated(given, "combined") == {"how", "weights", "density", "rank"}
    for seed, origin in ((None, Origin.DEFAULT), (0, Origin.USER)):
        found = audit(base, stereotypes=STEREOTYPES, seed=seed).record
        check(found)
        assert found.event("seed").origin == origin  # type: ignore[union-attr]


STEREOTYPES = [
    {
        "sent_more": f"the {a} people are bad {i}",
        "sent_less": f"the {b} people are bad {i}",
        "stereo_antistereo": "stereo",
        "bias_type": "race-color",
    }
    for i, (a, b) in enumerate([("old", "new"), ("red", "blue")] * 8)
]
