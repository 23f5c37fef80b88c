"""The token ledger before step 1 of adapting: told, refused by code, overridden by --allow, and kept in the record."""

import json
from pathlib import Path
from typing import Any

import pytest

from onebase.api.base import Base
from onebase.api.loading import load
from onebase.base.folder import LoadedBase, load_base, save_base
from onebase.errors import ConfigError, DataError
from onebase.modality.text import ChatTemplate, TextCodec
from tests.helpers import taken, tiny_base
from tests.pictures import digits, sighted
from tests.pretrained import onebase

PAIRS = [
    {"prompt": f"{a} {b} is", "completion": f" {b}."} for a in ("the", "a") for b in ("fox", "dog", "cat")
]
CHATS = [
    {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
    for q, a in (("Hi", "Yes."), ("So?", "No."), ("Is it", "It is."))
]
ASKED = [{"messages": [{"role": "user", "content": "Hi"}]}]
LABELLED = [{"text": f"{w} it {i}", "label": k} for i in range(3) for w, k in (("Is", "ask"), ("Go", "tell"))]
ENDLESS = ChatTemplate().source.replace(
    "{{ message.content }}<|end|>{% endgeneration %}", "{{ message.content }}{% endgeneration %}<|end|>"
)
TWICE = "{{ bos_token }}{{ bos_token }}" + ChatTemplate().source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base())
    return path


@pytest.fixture
def base(folder: Path) -> Base:
    return Base(load_base(folder))


def with_template(source: str) -> Base:
    """A base that was never saved, with a template of its own."""
    plain = tiny_base()
    return Base(LoadedBase(plain.model, TextCodec(plain.codec.tokenizer, ChatTemplate(source))))


def learn(base: Base, data: Any, **more: Any) -> Any:
    asked = {"method": "lora", "epochs": 1, "batch_size": 2} | more
    return base.adapt(data, **(taken(asked["method"], rank=2) | asked))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_is_told_before_step_1_and_kept_in_the_record(base: Base, method: str) -> None:
    heard: list[str] = []
    told = learn(base, PAIRS, task="complete", method=method, test=CHAT_FREE, log=heard.append)
    assert "« fox.<|eos|>»" in heard[0]
    assert "token ledger: 6 samples" in heard[0]
    assert "test samples in train: 0 of 1" in heard[0]
    kept = told.record.get("ledger")
    assert (kept["samples"], kept["bos"], kept["begun"], kept["ends_learnt"]) == (6, 6, 6, 6)
    assert (kept["test"], kept["test_in_train"], kept["findings"]) == (1, 0, {})
    assert kept["tokens"] == told.record.get("data.tokens")
    assert told.record.get("test.data.rows") == 1
    assert told.record.get("ledger.allowed") is None
    json.dumps(kept)


CHAT_FREE = [{"prompt": "the bird is", "completion": " bird."}]


def test_a_loop_never_starts_where_it_refuses(base: Base) -> None:
    heard: list[str] = []

    class Steps:
        def __getattr__(self, name: str) -> Any:  # whatever the loop says to its listeners, it has begun
            raise AssertionError(name)

    with pytest.raises(DataError, match="^test-in-train"):
        learn(base, PAIRS, task="complete", test=PAIRS[:2], callbacks=[Steps()], log=heard.append)
    assert "test-in-train, 2 samples" in heard[0]


BAD: list[tuple[str, Any, dict[str, Any]]] = [
    ("all-masked", None, {"data": CHATS + ASKED, "task": "chat"}),
    ("doubled-bos", TWICE, {"data": CHATS, "task": "chat"}),
    ("no-eos", ENDLESS, {"data": CHATS, "task": "chat"}),
    ("test-in-train", None, {"data": CHATS, "task": "chat", "test": CHATS[1:]}),
    ("test-in-train", None, {"data": PAIRS, "task": "complete", "test": [{"prompt": "the  fox", "completion": " is fox."}]}),
    ("test-in-train", None, {"data": LABELLED, "task": "classify", "test": [{"text": "Is  it 1"}]}),
    ("test-in-train", None, {"data": LABELLED, "task": "classify", "method": "head", "test": [{"text": "Go it 1"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "template", "asked"), BAD)
def test_a_bad_case_is_refused_and_can_be_allowed(base: Base, code: str, template: Any, asked: Any) -> None:
    base = base if template is None else with_template(template)
    with pytest.raises(DataError) as e:
        learn(base, **asked)
    assert e.value.cause.startswith(f"{code}: ")
    assert f"--allow {code}" in e.value.remedy
    made = learn(base, **asked, allow=[code])
    assert made.record.get("ledger.allowed") == [code]
    assert made.record.get("ledger")["findings"].keys() == {code}
    assert made.record.get("config.options")["allow"] == [code]


def test_a_template_that_is_not_the_saved_base_s(base: Base) -> None:
    words = base.loaded.codec
    base.loaded.text_codec = TextCodec(words.tokenizer, ChatTemplate(words.template.source + "\n"))
    with pytest.raises(DataError, match="^template-differs"):
        learn(base, CHATS, task="chat")
    assert learn(base, PAIRS, task="complete").record.get("ledger")["findings"] == {}  # no template there
    made = learn(base, CHATS, task="chat", allow=["template-differs"])
    assert made.record.get("ledger")["findings"] == {"template-differs": 3}


def test_nothing_at_all_to_learn_cannot_be_allowed(base: Base) -> None:
    with pytest.raises(DataError, match="none of the 1 samples has a token with a loss"):
        learn(base, ASKED, task="chat", allow=["all-masked"])


def test_labels_are_counted(base: Base) -> None:
    heard: list[str] = []
    data = [*LABELLED, LABELLED[0]]
    made = learn(base, data, task="classify", method="head", test=[{"text": "no"}], log=heard.append)
    assert "labels: ask 4, tell 3" in heard[0]
    kept = made.record.get("ledger")
    assert (kept["labels"], kept["repeats"], kept["test_in_train"]) == ({"ask": 4, "tell": 3}, 1, 0)


def test_pictures_are_compared_by_their_bytes(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    sighted(tmp_path / "base")
    rows = digits(tmp_path / "pictures", 12)
    for i, row in enumerate(rows):
        row |= {"image": str(tmp_path / "pictures" / row["image"]), "label": str(i % 2)}
    copied = tmp_path / "copied.png"
    copied.write_bytes(Path(rows[0]["image"]).read_bytes())
    base = load(tmp_path / "base")
    with pytest.raises(DataError, match="^test-in-train: test sample 2"):
        base.adapt(
            rows[:9],
            task="classify",
            method="head",
            test=[{"image": rows[10]["image"]}, {"image": str(copied)}],
        )
    made = base.adapt(rows[:9], task="classify", method="head", test=rows[9:])
    assert made.record.get("ledger")["test_in_train"] == 0
    with pytest.raises(DataError, match="none.png"):
        base.adapt(rows[:9], task="classify", method="head", test=[{"image": str(tmp_path / "none.png")}])
    with pytest.raises(DataError, match="none.png"):
        base.adapt(
            [*rows, {"image": str(tmp_path / "none.png"), "label": "1"}], task="classify", method="head"
        )


def test_an_unknown_code_names_the_nearest(base: Base) -> None:
    with pytest.raises(ConfigError, match="no code 'all_masked'") as e:
        learn(base, PAIRS, task="complete", allow=["all_masked"])
    assert "did you mean 'all-masked'?" in e.value.remedy


def test_the_command(folder: Path, tmp_path: Path) -> None:
    for name, rows in (("train", CHATS + ASKED), ("test", CHATS[:1])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["adapt", folder, "--data", tmp_path / "train.jsonl", "--test", tmp_path / "test.jsonl"]
    words += ["--task", "chat", "-o", "epochs=1", "--out", tmp_path / "made"]
    said = onebase(*words)
    assert said.status == 1
    assert "all-masked: sample 4" in said.err
    assert "also test-in-train (1 sample)" in said.err
    assert "--allow all-masked --allow test-in-train" in said.err
    assert "token ledger: 4 samples" in said.out
    said = onebase(*words, "--allow", "all-maskd")
    assert said.status == 1
    assert "did you mean 'all-masked'?" in said.err
    said = onebase(*words, "--allow", "all-masked", "--allow", "test-in-train")
    assert said.status == 0, said.err
    shown = onebase("show", tmp_path / "made", "--json")
    assert "test-in-train" in shown.out
