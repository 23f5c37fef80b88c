"""Saved prompts: what is read is what the template says; examples are the nearest, and never the question itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

import onebase
from onebase.api.base import Adapter, Base
from onebase.assess.gating import adapted_twin, against_classical
from onebase.base.folder import save_base
from onebase.cli import app
from onebase.engine.prompter import Prompted
from onebase.engine.prompting import prompter
from onebase.engine.scoring import score
from onebase.errors import ConfigError, UserError
from onebase.serve.adapters import attach_all, prompting, task_model
from onebase.serve.app import create_app
from tests.helpers import client_of, serving, tiny_base

TOLERANCE = 1e-5
"""Between log-probabilities of the same tokens in batches of other shapes, fp32."""
LABELLED = [
    {"text": t, "label": k}
    for t, k in [
        ("Is it so", "ask"),
        ("It is so", "tell"),
        ("What is it", "ask"),
        ("Go on", "tell"),
        ("The quick dog", "tell"),
        ("Is the dog lazy", "ask"),
    ]
]
ANSWERS = {"ask": "?", "tell": "."}
PAIRS = [{"prompt": p, "completion": c} for p, c in [("a dog", " jumps"), ("the fox", " is"), ("add", "(a)")]]
CHATS = [
    {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
    for q, a in [("Hi", "Yes."), ("Is it so?", "No."), ("add a dog", "Go on.")]
]


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(tiny_base(context=128, endless=True))


def made(base: Base, data: Any = (), task: str = "classify", **options: Any) -> Base:
    if task == "classify":
        options = {"answers": ANSWERS, **options}
    return base.with_adapter(base.adapt(list(data), task=task, method="prompt", **options))


def read(on: Base, row: dict[str, str]) -> Prompted:
    """What a classifying adapter reads of a row."""
    assert on.attached is not None
    return prompter(on.attached).texts([row])[0]


def test_generate_reads_the_filled_template(base: Base) -> None:
    on = made(base, task="complete", prompt="Say {text} in {tongue}: {{")
    assert on.generate("a {dog}", max_tokens=8, variables={"tongue": "{text}"}) == base.generate(
        "Say a {dog} in {text}: {", max_tokens=8
    )
    assert "".join(on.stream("x", max_tokens=4, variables={"tongue": 7})) == base.generate(
        "Say x in 7: {", max_tokens=4
    )
    alone = made(base, task="complete", prompt="A word of {tongue}:")
    assert alone.prompted("", {"tongue": "it"}).read == "A word of it:"


def test_chat_reads_the_saved_messages_first(base: Base) -> None:
    asked = [{"role": "user", "content": "Hi"}]
    on = made(base, task="chat", prompt="You are {who}.")
    explicit = [{"role": "system", "content": "You are it."}, *asked]
    assert on.chat(asked, max_tokens=6, variables={"who": "it"}) == base.chat(explicit, max_tokens=6)
    # Two system messages are one: ours has a place for one alone.
    own = on.prompted([{"role": "system", "content": "Be brief."}, *asked], {"who": "it"}).read
    assert own == [{"role": "system", "content": "You are it.\n\nBe brief."}, *asked]
    turns = [{"role": "user", "content": "{a}?"}, {"role": "assistant", "content": "Yes."}]
    more = made(base, task="chat", prompt=turns)
    assert more.prompted(asked, {"a": "So"}).read == [{"role": "user", "content": "So?"}, turns[1], *asked]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda w, c: w.generate("x"), "no value for 'tongue', given: text"),
        (lambda w, c: w.generate("x", variables={"tongue": "a", "b": "c", "d": 1}), "no variable 'b', 'd'"),
        (lambda w, c: w.generate("x", variables={"tongue": "a", "text": "b"}), "a text was given twice"),
        (lambda w, c: w.generate("x", variables={"tongue": ["a"]}), "'tongue' is list"),
        (lambda w, c: w.chat([{"role": "user", "content": "x"}]), "is for complete"),
        (lambda w, c: c.generate("x"), "is for chat"),
        (lambda w, c: c.chat([{"role": "user", "content": "x"}]), "no value for 'who'"),
        (lambda w, c: c.chat("x"), "is for chat"),
        (lambda w, c: c.chat([3], variables={"who": "x"}), "message 1 is int"),
    ],
)
def test_bad_requests_say_what_is_wrong(base: Base, ask: Callable[[Base, Base], object], said: str) -> None:
    writes = made(base, task="complete", prompt="{text} {tongue}")
    with pytest.raises(UserError, match=said):
        ask(writes, made(base, task="chat", prompt="{who}"))
    with pytest.raises(UserError, match="the base has no saved prompt"):
        base.generate("x", variables={"a": "b"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "complete"}, "nothing to save"),
        ({"task": "complete", "prompt": "{text}!", "data": PAIRS}, "without examples uses no data"),
        ({"task": "complete", "shots": {"n": 9}, "data": PAIRS}, "asks for 9 examples, the data has 3 rows"),
        (
            {"task": "complete", "shots": {"n": 1, "select": "balanced"}, "data": PAIRS},
            "balanced needs rows with labels",
        ),
        ({"task": "complete", "prompt": "{x}", "shots": {"n": 1}, "data": PAIRS}, "no column 'x'|lacks|'x'"),
        ({"task": "complete", "prompt": "{text", "data": []}, "lone '{'"),
        ({"task": "chat", "shots": {"n": 1}, "data": [{"messages": CHATS[0]["messages"][:1]}]}, "an answer"),
        ({"task": "chat", "answers": ANSWERS}, "remove `answers`|answers are compared"),
        ({"prompt": "no place"}, "has no variable for the text"),
        ({"prompt": [{"role": "user", "content": "{text}"}]}, "for task chat"),
        ({"shots": {"n": 1}, "data": [{"text": "a", "label": "shout"}]}, "'shout' has no answer"),
        ({"compare": {"calibration": "batch"}}, "no texts to calibrate on"),
        ({"shots": {"m": 1}}, "unknown key"),
    ],
)
def test_what_cannot_be_saved_is_refused(base: Base, options: dict[str, Any], said: str) -> None:
    task, data = options.pop("task", "classify"), options.pop("data", [])
    with pytest.raises((UserError, ConfigError), match=said):
        made(base, data, task, **options)


def test_the_nearest_examples_stand_last(base: Base) -> None:
    """By brute force: cosines of what `embed` gives, of all but the question itself."""
    on = made(base, LABELLED, shots={"n": 3}, compare={"calibration": "none"})
    texts = [r["text"] for r in LABELLED]
    for asked in ("Is it the dog", "Go on", "naïve café"):
        cosines = F.cosine_similarity(base.embed([asked]), base.embed(texts))
        order = [i for i in cosines.argsort().tolist() if texts[i] != asked][-3:]
        shown = "".join(f"{texts[i]}{ANSWERS[LABELLED[i]['label']]}\n\n" for i in order)
        assert read(on, {"text": asked}) == Prompted(shown + asked, 3, 0)


def test_fixed_examples_are_the_same_for_all(base: Base) -> None:
    def stored(select: str, n: int, seed: int = 0) -> list[str]:
        on = made(
            base, LABELLED, seed=seed, shots={"n": n, "select": select}, compare={"calibration": "none"}
        )
        assert on.attached is not None and on.attached.config.prompt is not None
        assert read(on, {"text": "x"}).examples == n
        assert on.attached.name not in on.loaded.model.virtual
        return [e["text"] for e in on.attached.config.prompt.examples]

    label = {r["text"]: r["label"] for r in LABELLED}
    assert stored("first", 2) == ["Is it so", "It is so"]
    assert stored("random", 3) == stored("random", 3)
    assert len({tuple(stored("random", 3, seed)) for seed in range(6)}) > 1
    for seed in range(4):
        assert sorted(label[t] for t in stored("balanced", 4, seed)) == ["ask", "ask", "tell", "tell"]


@pytest.mark.parametrize("select", ["similar", "first"])
def test_a_question_never_sees_itself(base: Base, select: str) -> None:
    on = made(base, LABELLED, shots={"n": 6, "select": select}, compare={"calibration": "none"})
    for row in LABELLED:
        shown = read(on, row)
        assert shown.examples == 5 and row["text"] not in shown.read.removesuffix(row["text"]).split("\n")


def test_what_has_no_room_is_dropped_whole_the_least_similar_first(base: Base) -> None:
    small = Base(tiny_base(context=40, endless=True))
    on = made(small, LABELLED, shots={"n": 6}, compare={"calibration": "none"})
    assert on.attached is not None and on.attached.config.prompt is not None
    shown = read(on, {"text": "Is it here"})
    assert 0 < shown.examples < 6 and shown.examples + shown.dropped == 6
    wide = read(made(base, LABELLED, shots={"n": 6}, compare={"calibration": "none"}), {"text": "Is it here"})
    assert wide.read.endswith(shown.read), "the weights are the same, and so is what is left, whole"
    size = len(small.tokenizer.encode(shown.read, bos=True)) + on.attached.config.prompt.room
    assert size <= 40
    recorded = made(small, LABELLED, shots={"n": 6}).attached
    assert recorded is not None and recorded.record.get("shots.dropped") >= 6
    assert recorded.record.get("shots.stored") == 6


@pytest.mark.parametrize("select", ["similar", "first"])
@pytest.mark.parametrize(("task", "context"), [("classify", 24), ("complete", 20), ("chat", 26)])
def test_the_record_has_how_many_examples_find_no_room(task: str, context: int, select: str) -> None:
    """Of every task: as many as asking the questions of the rows leaves out."""
    data = {"classify": LABELLED, "complete": PAIRS, "chat": CHATS}[task]
    options: dict[str, Any] = {"shots": {"n": 3, "select": select}}
    if task == "classify":
        options["compare"] = {"calibration": "none"}
    if task == "chat":
        options["prompt"] = [{"role": "system", "content": "{who}."}]
    on = made(Base(tiny_base(context=context, endless=True)), data, task, **options)
    if task == "classify":
        asked = [read(on, row) for row in LABELLED]
    elif task == "complete":
        asked = [on.prompted(row["prompt"]) for row in PAIRS]
    else:
        asked = [on.prompted(row["messages"][:-1], variables={"who": "x"}) for row in CHATS]
    assert on.attached is not None
    assert on.attached.record.get("shots.dropped") == sum(p.dropped for p in asked) > 0
    wide = made(Base(tiny_base(context=128, endless=True)), data, task, **options).attached
    assert wide is not None and wide.record.get("shots.dropped") == 0


def test_the_template_says_where_examples_go(base: Base) -> None:
    on = made(
        base,
        PAIRS,
        "complete",
        prompt="Go on.\n{examples}In: {text}\nOut:",
        shots={"n": 1, "select": "first", "example": "In: {text}\nOut:{answer}", "between": "\n---\n"},
    )
    assert on.prompted("x").read == "Go on.\nIn: a dog\nOut: jumps\n---\nIn: x\nOut:"


def test_chat_examples_are_turns(base: Base) -> None:
    on = made(base, CHATS, "chat", prompt="Say.", shots={"n": 2, "select": "first"})
    hi = [{"role": "user", "content": "What"}]
    system = {"role": "system", "content": "Say."}
    assert on.prompted(hi).read == [system, *CHATS[0]["messages"], *CHATS[1]["messages"], *hi]
    assert on.prompted(CHATS[0]["messages"][:1]).examples == 1  # not itself
    tight = made(Base(tiny_base(context=26)), CHATS, "chat", shots={"n": 3})
    found = tight.prompted(hi)
    assert found.examples + found.dropped == 3 and found.dropped > 0
    tight.chat(hi, max_tokens=2)


def by_hand(base: Base, forms: list[str], answers: dict[str, str], mean: bool = False) -> torch.Tensor:
    """log P(answer | prompt), normalised over answers, one forward for each."""
    out = []
    for form in forms:
        head = base.tokenizer.encode(form, bos=True)
        row = []
        for a in answers.values():
            tail = base.tokenizer.encode(a, follows="text")
            logp = torch.as_tensor(score(base.loaded, [[*head, *tail]])[0])[-len(tail) :]
            row.append(float(logp.mean() if mean else logp.sum()))
        out.append(row)
    return torch.tensor(out).log_softmax(-1)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("answers", [ANSWERS, {"ask": " a question", "tell": " so"}])
@pytest.mark.parametrize("how", ["none", "batch", "content_free"])
def test_scores_are_those_of_the_answers_less_their_bias(
    base: Base, how: str, answers: dict[str, str], mean: bool
) -> None:
    on = made(base, LABELLED, answers=answers, prompt="{text} so", compare={"calibration": how, "mean": mean})
    texts = ["Is it", "Go on"]
    wanted = by_hand(base, [f"{t} so" for t in texts], answers, mean)
    if how == "batch":
        wanted = wanted - by_hand(base, [f"{r['text']} so" for r in LABELLED], answers, mean).mean(0)
    elif how == "content_free":
        free = by_hand(base, ["N/A so", "[MASK] so", " so"], answers, mean)
        wanted = wanted - free.exp().mean(0).log()
    found = torch.tensor([list(x.scores.values()) for x in on.classify(texts)])
    torch.testing.assert_close(found, wanted.softmax(-1), atol=TOLERANCE, rtol=TOLERANCE)
    assert on.attached is not None and on.attached.record.get("prompt.calibration") == how


def test_rows_with_other_columns(base: Base, tmp_path: Path) -> None:
    rows = [{**r, "topic": f"dog {i % 2}"} for i, r in enumerate(LABELLED)]
    on = made(base, rows, prompt="{topic}: {text}", shots={"n": 1})
    plain = made(base, [{**r, "text": f"{r['topic']}: {r['text']}"} for r in rows], shots={"n": 1})
    assert [x.label for x in on.classify(rows[:2])] == [
        x.label for x in plain.classify([f"{r['topic']}: {r['text']}" for r in rows[:2]])
    ]
    assert onebase.evaluate(on, rows)["accuracy"].n == len(rows)
    assert against_classical(on, rows, rows).line
    with pytest.raises(UserError, match="row 1: the prompt has no value for 'topic', given: text"):
        on.classify([{"text": "x"}])
    with pytest.raises(UserError, match="no column 'topic'|'topic'"):
        onebase.evaluate(on, LABELLED)


def test_scores_count_the_answer_alone(base: Base) -> None:
    """Saved messages and examples with an assistant in them are read, and not scored."""
    system = {"role": "system", "content": "Go."}
    on = made(base, CHATS[:2], "chat", prompt="Go.", shots={"n": 2, "select": "first"})
    rows = CHATS[2:]
    found = onebase.evaluate(on, rows, max_tokens=4)
    ids = base.loaded.codec.chat_ids(
        [system, *CHATS[0]["messages"], *CHATS[1]["messages"], rows[0]["messages"][0]]
    )
    answer = [*base.tokenizer.encode("Go on."), base.tokenizer.id_of("<|end|>")]
    nats = -score(base.loaded, [[*ids, *answer]])[0][-len(answer) :].mean()
    assert found["nats_per_token"].value == pytest.approx(float(nats), abs=TOLERANCE)
    on = made(base, task="complete", prompt="{text} {more}:")
    row = {"prompt": "a", "completion": " dog", "more": "b"}
    plain = onebase.evaluate(base, [{"prompt": "a b:", "completion": " dog"}], task="complete")
    assert onebase.evaluate(on, [row])["nats_per_token"].value == pytest.approx(plain["nats_per_token"].value)


@pytest.mark.parametrize("how", ["none", "content_free"])
def test_the_twin_has_the_same_examples(base: Base, how: str) -> None:
    on = made(base, LABELLED, shots={"n": 2}, compare={"calibration": how})
    twin = adapted_twin(on, LABELLED, seed=0).attached
    assert twin is not None and twin.config.prompt is not None and on.attached is not None
    assert on.attached.config.prompt is not None
    assert twin.config.prompt.examples == on.attached.config.prompt.examples
    assert (twin.config.prompt.bias is None) == (how == "none")
    with pytest.raises(UserError, match="not the training rows of the adapter"):
        against_classical(on, LABELLED[:4], LABELLED[4:8])


def test_saved_and_read_again(base: Base, tmp_path: Path) -> None:
    save_base(tmp_path / "base", tiny_base(context=128, endless=True))
    adapter = base.adapt(LABELLED, task="classify", method="prompt", answers=ANSWERS, shots={"n": 2})
    on = onebase.load(tmp_path / "base").with_adapter(adapter.save(tmp_path / "a"))
    texts = [r["text"] for r in LABELLED]
    assert on.classify(texts) == base.with_adapter(adapter).classify(texts)
    # What is stored is what the base says, of length 1; nothing is embedded again but the question.
    vectors = Adapter.load(tmp_path / "a").parts.tensors["prompt.vectors"]
    torch.testing.assert_close(vectors, F.normalize(base.embed(texts), dim=-1), atol=1e-5, rtol=1e-5)
    other = Adapter.load(tmp_path / "a")
    other.parts.tensors = {}
    with pytest.raises(ConfigError, match="vectors of shape"):
        base.with_adapter(other)


def test_the_commands(base: Base, tmp_path: Path) -> None:
    save_base(tmp_path / "base", tiny_base(context=128, endless=True))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({**r, "topic": "dog"}) + "\n" for r in LABELLED))

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [words[0], str(tmp_path / "base"), *words[1:]])
        assert done.exit_code == code or (code and done.exception), done.output
        return done.output + (str(done.exception) if code else "")

    sorts = ("--task", "classify", "--method", "prompt", "--data", str(rows), "-o", "shots.n=2")
    sorts += ("-o", 'answers={ask: "?", tell: "."}', "-o", 'prompt="{topic}: {text}"')
    assert "nothing is trained" in run("adapt", *sorts, "--dry-run")
    run("adapt", *sorts, "--out", str(tmp_path / "sort"))
    on = ("--adapter", str(tmp_path / "sort"))
    said = run("apply", "A dog", "--var", "topic=x", "--json", *on)
    assert set(json.loads(said)) == {"topic", "text", "label", "scores"}
    assert len(run("apply", "--data", str(rows), *on).splitlines()) == len(LABELLED)
    assert "accuracy" in run("eval", "--data", str(rows), *on)
    assert "no such variable" in run("apply", "A", "--var", "tropic=x", *on, code=1)
    run(
        "adapt",
        "--task",
        "complete",
        "--method",
        "prompt",
        "-o",
        'prompt="{text} {a}"',
        "--out",
        str(tmp_path / "w"),
    )
    on = ("--adapter", str(tmp_path / "w"))
    wanted = base.generate("x y", max_tokens=5)
    assert run("generate", "x", "--var", "a=y", "--max-tokens", "5", *on) == wanted + "\n"
    assert "is not of the form NAME=VALUE" in run("generate", "x", "--var", "a", *on, code=1)
    assert "no text to continue" in run("generate", code=1)


def test_served(base: Base, tmp_path: Path) -> None:
    for name, options in {
        "write": {"data": PAIRS, "task": "complete", "prompt": "{text} {a}", "shots": {"n": 1}},
        "talk": {"data": [], "task": "chat", "prompt": "You are {who}."},
        "sort": {"data": [], "task": "classify", "prompt": "{text} {b}", "answers": ANSWERS},
    }.items():
        rows = [{**r, "a": "so"} for r in options.pop("data")]
        base.adapt(rows, method="prompt", **options).save(tmp_path / name)  # type: ignore[arg-type]
    on = attach_all(base, {n: tmp_path / n for n in ("write", "talk", "sort")})
    saved = {n: prompting(on[n]) for n in ("write", "talk")}
    served: Any = create_app(
        base.loaded, "tiny", dict.fromkeys(saved), {"sort": task_model(base.loaded, on["sort"])}, saved
    )
    hi = [{"role": "user", "content": "Hi"}]
    with serving(served) as url, client_of(url) as client:
        asked = {"max_tokens": 4, "temperature": 0}
        got = client.completions.create(
            model="write", prompt="x", extra_body={"variables": {"a": "y"}}, **asked
        )
        wanted = made(
            base, [{**r, "a": "so"} for r in PAIRS], "complete", prompt="{text} {a}", shots={"n": 1}
        )
        assert got.choices[0].text == wanted.generate("x", max_tokens=4, variables={"a": "y"})
        told = client.chat.completions.create(
            model="talk", messages=hi, extra_body={"variables": {"who": "it"}}, **asked
        )
        explicit = [{"role": "system", "content": "You are it."}, *hi]
        assert told.choices[0].message.content == base.chat(explicit, max_tokens=4)
        body = {"model": "sort", "input": "Is it", "variables": {"b": "so"}}
        sorted_ = client.post("/classify", body=body, cast_to=object)
        label = made(base, prompt="{text} {b}").classify([{"text": "Is it", "b": "so"}])[0].label
        assert sorted_["data"][0]["label"] == label
        rows = [{"text": "Is it", "b": "so"}]
        again = client.post("/classify", body={"model": "sort", "input": rows}, cast_to=object)
        assert again["data"] == sorted_["data"]
        for more, said in (
            ({}, "input has no 'b': this model reads text, b"),
            ({"variables": {"b": "x", "c": "y"}}, "input has 'c', but"),
        ):
            with pytest.raises(Exception, match=said):
                client.post("/classify", body={"model": "sort", "input": "x", **more}, cast_to=object)
        for model, more, said in (
            ("write", {}, "no value for 'a'"),
            ("tiny", {"variables": {"a": "b"}}, "no saved prompt"),
            ("write", {"variables": {"a": ["b"]}}, "variables"),
        ):
            with pytest.raises(Exception, match=said):  # the client's own error, of status 400
                client.completions.create(model=model, prompt="x", extra_body=more, **asked)
        with pytest.raises(Exception, match="takes text, not token ids"):
            client.completions.create(
                model="write", prompt=[1, 2], extra_body={"variables": {"a": "y"}}, **asked
            )
