"""The gate of `onebase eval --train`: both sides are counted alike, and the twin's adapter is made as the adapter was."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onebase.api.base import Adapter, Base
from onebase.assess import gating
from onebase.assess.gating import adapted_twin, against_classical, contenders, shipped_bytes
from onebase.base.folder import load_base, save_base
from onebase.errors import DataError, UserError
from onebase.methods.folder import Attached, load_adapter
from tests.helpers import tiny_base
from tests.pretrained import onebase as command
from tests.pretrained import tiny_run

Put = Callable[[str], Base]
ROWS = [
    {"text": f"{start} {i}", "label": label}
    for i in range(6)
    for start, label in (("Is it so", "ask"), ("It is so", "tell"), ("What is", "ask"), ("Go on", "tell"))
]
ANSWERS = {"ask": "?", "tell": "."}
LORA: dict[str, Any] = {
    "method": "lora",
    "epochs": 2,
    "lr": 0.02,
    "batch_size": 5,
    "max_length": 40,
    "rank": 3,
    "alpha": 5.0,
    "sites": ["q", "v"],
    "pooling": "mean",
    "seed": 7,
}
METHODS: dict[str, dict[str, Any]] = {
    "prompt": {"data": [], "method": "prompt", "prompt": "{text} so", "answers": ANSWERS},
    "calibrated": {"data": ROWS[:8], "method": "prompt", "prompt": "{text} so", "answers": ANSWERS},
    "head": {"data": ROWS, "method": "head", "pooling": "last", "seed": 3},
    "lora": {"data": ROWS, **LORA},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base())
    return path


@pytest.fixture(scope="module")
def adapters(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    """An adapter of each method, in memory and saved: `parts.path` is its folder."""
    base, out = Base(load_base(saved)), {}
    for name, options in METHODS.items():
        more = {k: v for k, v in options.items() if k != "data"}
        out[name] = base.adapt(options["data"], task="classify", **more)
        out[name].save(tmp_path_factory.mktemp("adapters") / name)
    return out


@pytest.fixture(params=["memory", "folder"])
def put(request: pytest.FixtureRequest, saved: Path, adapters: dict[str, Adapter]) -> Put:
    """The base with the adapter of a method on it: as it was made, or as its folder holds it."""

    def on_base(method: str) -> Base:
        adapter = adapters[method]
        return Base(load_base(saved)).with_adapter(
            adapter if request.param == "memory" else folder_of(adapter)
        )

    return on_base


def folder_of(adapter: Adapter) -> Path:
    assert adapter.parts.path is not None
    return adapter.parts.path


def attached_to(base: Base) -> Attached:
    assert base.attached is not None
    return base.attached


@pytest.mark.parametrize("method", METHODS)
def test_the_twin_is_made_with_exactly_the_options_of_the_adapter(method: str, put: Put) -> None:
    base = put(method)
    twin = adapted_twin(base, ROWS, 0)
    ours, theirs = attached_to(base), attached_to(twin)
    options = ours.record.get("config.options")
    assert (
        options.items() >= {k: v for k, v in METHODS[method].items() if k not in ("data", "method")}.items()
    )
    assert theirs.record.get("config.options") == options
    assert theirs.record.get("train.steps") == ours.record.get("train.steps")  # epochs and rows at work
    assert (theirs.config.lora, theirs.config.head) == (ours.config.lora, ours.config.head)
    assert twin.fingerprint != base.fingerprint
    assert theirs.fingerprint != ours.fingerprint


def test_a_longest_sample_holds_for_the_twin_too(put: Put) -> None:
    long = {"text": "zq" * 22, "label": "ask"}
    twin = adapted_twin(put("lora"), [*ROWS, long], 0)
    assert twin.attached is not None and twin.attached.config.head is not None
    assert twin.attached.config.head.limit == 40
    assert twin.attached.record.get("data.long")["windowed"] == 1


def test_a_twin_of_a_prompt_is_calibrated_only_if_the_prompt_is(put: Put) -> None:
    for method, rows in (("prompt", 0), ("calibrated", len(ROWS))):
        twin = attached_to(adapted_twin(put(method), ROWS, 0))
        assert twin.config.prompt is not None
        assert (twin.config.prompt.bias is not None) == (method == "calibrated")
        assert twin.record.get("data.rows") == rows


def test_an_adapter_without_recorded_options_falls_back_to_its_config(
    saved: Path, adapters: dict[str, Adapter]
) -> None:
    parts = load_adapter(folder_of(adapters["lora"]))
    parts.record.events = [
        e for e in parts.record.events if not e.field.startswith(("config.options", "seconds"))
    ]
    base = Base(load_base(saved)).with_adapter(Adapter(parts))
    twin = attached_to(adapted_twin(base, ROWS, 0))
    assert (twin.config.lora, twin.config.head) == (parts.config.lora, parts.config.head)
    ours, untrained, _ = contenders(base, ROWS, ROWS)
    assert untrained is None, "nobody asked for it"
    assert ours.seconds == 0, "predicting alone would pass for fitting and predicting"
    assert "of the time" not in against_classical(base, ROWS, ROWS).line


@pytest.mark.parametrize("method", METHODS)
def test_all_count_fitting_predicting_and_what_must_be_shipped(method: str, put: Put) -> None:
    base = put(method)
    record = attached_to(base).record
    before = record.get("seconds")
    record.add("seconds", before + 100.0, "measured, and made larger by the test")
    ours, twin, rivals = contenders(base, ROWS, ROWS[:20], twin=True)
    assert twin is not None
    record.add("seconds", before, "measured")
    assert before + 100 < ours.seconds < before + 160, "the record's seconds, and those of predicting"
    assert 0 < twin.seconds < 100
    for s in (ours, twin, *rivals):
        assert s.seconds > 0
        assert s.size > 0
        assert len(s.sums.over) == 20
    assert len(rivals) == 2
    assert [s.shared for s in rivals] == [0, 0]
    assert ours.shared == twin.shared > 0


@pytest.mark.parametrize("method", METHODS)
def test_bytes_are_those_of_the_files_but_for_their_headers(
    method: str, put: Put, saved: Path, adapters: dict[str, Adapter]
) -> None:
    def on_disk(folder: Path, *names: str) -> int:
        return sum((folder / n).stat().st_size for n in names)

    size, shared = shipped_bytes(put(method))
    whole = on_disk(saved, "model-00001.safetensors", "codecs/text/tokenizer.json", "template.jinja")
    assert 0.9 * whole < shared <= whole, "an adapter that is on the base is no part of it"
    folder = folder_of(adapters[method])
    assert adapters[method].bytes < size <= on_disk(folder, "adapter.safetensors", "adapter.json")
    assert shipped_bytes(Base(load_base(saved))) == (0, shared)


def test_the_gate_says_what_the_bytes_are(put: Put) -> None:
    line = against_classical(put("head"), ROWS, ROWS).line
    assert "the adapter alone and " in line
    assert "the adapter with its base (" in line
    assert "shared by all its tasks)" in line


def test_only_for_an_adapter_of_a_kind_that_has_rivals(saved: Path) -> None:
    with pytest.raises(UserError, match="that predicts labels, a number or spans"):
        against_classical(Base(load_base(saved)), ROWS, ROWS)


def test_all_systems_learn_from_the_same_rows(put: Put) -> None:
    for method in ("head", "lora"):
        with pytest.raises(DataError, match="these 23 rows are not the training rows of the adapter"):
            contenders(put(method), ROWS[1:], ROWS[:20])
        with pytest.raises(
            DataError, match="the adapter was trained on the test rows, not on the training rows"
        ):
            contenders(put(method), ROWS[1:], ROWS)
    contenders(put("prompt"), ROWS[:20], ROWS)  # it learnt from none


def bag_of_words(n: int, seed: int) -> list[dict[str, str]]:
    """Six words in any order, one of them a colour or a metal: which of the two it is, is the label. The order says nothing."""
    rng = random.Random(seed)
    telling = {"colour": ("red", "blue", "green", "grey"), "metal": ("iron", "tin", "zinc", "lead")}
    other = ("of", "and", "some", "near", "far", "old", "new", "here", "there", "one")
    rows = []
    for i in range(n):
        label = ("colour", "metal")[i % 2]
        words = [rng.choice(telling[label]), *rng.sample(other, 5)]
        rng.shuffle(words)
        rows.append({"text": " ".join(words), "label": label})
    return rows


@pytest.mark.parametrize("method", ["head", "lora"])
def test_where_words_alone_decide_the_classical_system_is_recommended(method: str) -> None:
    base = Base(load_base(tiny_run() / "base"))
    known, test = bag_of_words(60, 0), bag_of_words(120, 1)
    adapter = base.adapt(known, task="classify", method=method, epochs=2)
    verdict = against_classical(base.with_adapter(adapter), known, test)
    assert not verdict.needs_base and verdict.classical == "TF-IDF + logistic regression"
    if verdict.answer == "no":
        assert verdict.line.startswith("No: TF-IDF + logistic regression ") and "; ship that" in verdict.line
    else:
        assert verdict.line.startswith("Cannot tell with 120 test rows: the difference to TF-IDF")
        assert "ship" not in verdict.line
    ours, *rivals = verdict.costs
    assert all(c.ms_per_item and c.joules_per_item and c.how for c in verdict.costs)
    assert ours.shared_bytes > 0 and all(c.shared_bytes == 0 for c in rivals)


def test_the_command_shows_the_costs(saved: Path, adapters: dict[str, Adapter], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    words = ("eval", saved, "--adapter", folder_of(adapters["head"]), "--data", rows, "--train", rows)
    told = command(*words)
    assert (
        told.status == 0 and "joules an item" in told.out and "ms and joules: all test items" in told.out
    ), told.err
    found = json.loads(command(*words, "--json").out)
    assert found["gate"].lower().startswith(found["gate_answer"])
    assert "untrained" not in found["gate"]
    assert {"name", "bytes", "shared_bytes", "ms_per_item", "joules_per_item", "how"} == set(
        found["gate_costs"][0]
    )


def test_the_command_compares_with_a_twin_where_it_is_asked(
    saved: Path, adapters: dict[str, Adapter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, made = tmp_path / "rows.jsonl", []
    rows.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    monkeypatch.setattr(gating, "adapted_twin", lambda *given: made.append(given) or adapted_twin(*given))
    words = ("eval", saved, "--adapter", folder_of(adapters["head"]), "--data", rows)
    assert command(*words, "--train", rows).status == 0 and not made
    assert command(*words, "--train", rows, "--twin").status == 0 and len(made) == 1
    told = command(*words, "--twin")
    assert told.status == 1 and "--twin needs --train" in told.err
