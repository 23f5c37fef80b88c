"""Answers of a given form from Python, the command line, the server and evaluation."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import onebase as ob
from onebase.api.base import Base
from onebase.base.folder import save_base
from onebase.errors import UserError
from onebase.serve import create_app
from tests.helpers import client_of, serving, tiny_base
from tests.pretrained import onebase

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"fine": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["fine", "n"],
    "additionalProperties": False,
}
CHAT: list[Any] = [{"role": "user", "content": "Is it?"}]


def fits(text: str) -> bool:
    said = json.loads(text)
    return set(said) == {"fine", "n"} and isinstance(said["fine"], bool) and said["n"] in range(10)


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(tiny_base(context=256))


def test_generate_chat_and_stream_hold_to_the_form(base: Base) -> None:
    form = ob.Constraint(schema=SCHEMA)
    assert fits(base.generate("The quick", constraint=form))
    assert fits(base.chat(CHAT, temperature=1.0, seed=1, constraint=ob.Constraint(schema=json.dumps(SCHEMA))))
    assert fits("".join(base.stream(CHAT, temperature=1.0, seed=2, constraint=form)))
    assert base.generate("The quick", constraint=ob.Constraint(regex="(yes|no)!")) in ("yes!", "no!")
    with pytest.raises(UserError, match="stop"):
        base.generate("The quick", stop=("x",), constraint=form)


ROWS = [{"prompt": f"{i}: ", "completion": json.dumps({"fine": bool(i % 2), "n": i})} for i in range(10)]


def test_evaluation_scores_json_and_can_hold_answers_to_a_schema(base: Base) -> None:
    free = ob.evaluate(base, ROWS, task="complete")
    held = ob.evaluate(base, ROWS, task="complete", constraint=ob.Constraint(schema=SCHEMA))
    assert list(free) == [
        "nats_per_token",
        "exact_match",
        "rouge_l",
        "chrf",
        "bleu",
        "json_valid",
        "json_match",
    ]
    assert (free["json_valid"].value, held["json_valid"].value) == (0.0, 1.0)
    assert free["nats_per_token"] == held["nats_per_token"]  # of the rows' answers, whatever is written
    assert "version:" in held["chrf"].how and held["rouge_l"].how == ""
    texts = [r | {"completion": "It is."} for r in ROWS]
    assert "json_valid" not in ob.evaluate(base, texts, task="complete")
    with pytest.raises(UserError, match="generates no text"):
        ob.evaluate(base, [{"text": "a"}], task="text", constraint=ob.Constraint(schema=SCHEMA))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    save_base(folder, tiny_base(context=256))
    return folder


def test_the_commands_take_a_schema_and_a_regex(saved: Path, tmp_path: Path) -> None:
    schema, rows = tmp_path / "schema.json", tmp_path / "rows.jsonl"
    schema.write_text(json.dumps(SCHEMA))
    rows.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    said = onebase("generate", saved, "On Friday", "--schema", schema)
    assert said.status == 0 and fits(said.out)
    said = onebase("generate", saved, "On Friday", "--regex", " [0-9]{3}")
    assert re.fullmatch(r" \d{3}\n", said.out)
    said = onebase("chat", saved, "--schema", schema, "--temperature", "0", stdin="Is it?\n\n")
    assert fits(said.out)
    said = onebase("eval", saved, "--data", rows, "--task", "complete", "--schema", schema, "--json")
    found = json.loads(said.out)
    assert found["json_valid"]["value"] == 1.0 and "how" in found["bleu"] and "how" not in found["rouge_l"]
    said = onebase("eval", saved, "--data", rows, "--task", "complete", "--max-tokens", "8")
    assert re.search(r"chrf: .*nrefs:1", said.out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--schema", "nowhere.json"), "nowhere.json"),
        (("--schema", "bad.json"), "not JSON"),
        (("--schema", "hard.json"), "uniqueItems"),
        (("--regex", "(a"), "unclosed"),
        (("--regex", "a", "--stop", "b"), "stop"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[str, ...], said: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("{")
    Path("hard.json").write_text('{"type": "array", "uniqueItems": true}')
    found = onebase("generate", saved, "On Friday", *words)
    assert found.status == 1 and found.out == "" and "Traceback" not in found.err
    assert said in found.err.splitlines()[0]


@pytest.fixture(scope="module")
def client(base: Base) -> Iterator[openai.OpenAI]:
    with serving(create_app(base.loaded, "tiny")) as url, client_of(url) as made:
        yield made


def shape(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def test_the_openai_client_gets_json_of_its_schema(client: openai.OpenAI) -> None:
    def ask(**more: Any) -> Any:
        return client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=100, **more)

    done = ask(response_format=shape(SCHEMA)).choices[0]
    assert fits(done.message.content) and done.finish_reason == "stop"
    parts = [c.choices[0].delta.content or "" for c in ask(response_format=shape(SCHEMA), stream=True)]
    assert fits("".join(parts))
    done = ask(response_format={"type": "json_object"}, seed=4).choices[0]
    assert done.message.content.startswith("{")
    assert done.finish_reason == "length" or isinstance(json.loads(done.message.content), dict)
    assert ask(response_format={"type": "text"}).choices[0].message.content is not None
    for extra, form in (({"regex": "(yes|no)"}, "yes|no"), ({"grammar": 'start: "a" /b+c/'}, "ab+c")):
        text = ask(extra_body={"structured_outputs": extra}, temperature=1).choices[0].message.content
        assert re.fullmatch(form, text)
    body = {"response_format": shape(SCHEMA)}
    done = client.completions.create(model="tiny", prompt=["a", "b"], max_tokens=100, extra_body=body)
    assert [fits(c.text) for c in done.choices] == [True, True]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"response_format": shape({"type": "array", "uniqueItems": True})}, "uniqueItems"),
        ({"response_format": shape([])}, "schema"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": shape({"type": "object", "minProperties": 3})}, "minProperties"),
        ({"structured_outputs": {"regex": "(a"}}, "unclosed"),
        ({"structured_outputs": {"choice": ["a"]}}, "choice"),
        ({"structured_outputs": {}}, "nothing"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "two formats for one answer",
        ),
        ({"response_format": {"type": "json_object"}, "stop": ["a"]}, "stop"),
        ({"guided_json": {}}, "guided_json"),
        ({"grammar": "root ::= [a]"}, "grammar"),
    ],
)
def test_a_form_that_cannot_be_held_is_400_before_any_token(
    client: openai.OpenAI, body: dict[str, Any], said: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="tiny", messages=CHAT, extra_body=body, stream=stream)
    assert said in e.value.message
