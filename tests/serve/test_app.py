"""The API as the real `openai` client sees it, over a real server."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from onebase.base.folder import LoadedBase
from onebase.engine import Sampling, generate
from onebase.errors import UserError
from onebase.model.proj import AdapterRouting
from onebase.serve import create_app
from onebase.serve.errors import BODY
from onebase.serve.tasks import TaskModel
from tests.helpers import add_lora, client_of, serving, tiny_base

TALK: list[Any] = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Is it?"}]
CONTEXT = 20_000  # long enough that an answer that fills it takes many seconds


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    made = tiny_base(context=CONTEXT, depth=1, endless=True)
    add_lora(made, "one", 1)
    add_lora(made, "two", 2)
    return made


def sort(texts: list[str]) -> list[dict[str, Any]]:
    return [{"label": "short" if len(t) < 2 else "long", "scores": {"short": 1 / len(t)}} for t in texts]


def first(rows: list[Any]) -> list[dict[str, Any]]:
    return [{"best": r["passages"][0], "of": r["query"]} for r in rows]


ASKED = {
    "sorter": TaskModel("classify", "/v1/classify", sort, fingerprint="ad1-x"),
    "picker": TaskModel("pick", "/v1/pick", first, ("query", "passages"), ("passages",)),
}


@pytest.fixture(scope="module")
def url(base: LoadedBase) -> Iterator[str]:
    adapters = {
        "first": AdapterRouting.all_rows("one"),
        "second": AdapterRouting.all_rows("two"),
        "plain": None,
    }
    with serving(create_app(base, "tiny", adapters, ASKED)) as found:
        yield found


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with client_of(url) as made:
        yield made


def raw(
    url: str, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, Any], Any]:
    """A request as bytes: status, JSON, headers."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else {}, answer.headers


def wait_idle(url: str, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while (state := raw(url, "GET", "/health")[1]) and (state["running"] or state["waiting"]):
        assert time.monotonic() < end, state
        time.sleep(0.02)


def test_models(client: openai.OpenAI, base: LoadedBase) -> None:
    assert [m.id for m in client.models.list()] == ["tiny", "first", "second", "plain", "sorter", "picker"]
    card = client.models.retrieve("first").model_dump()
    assert (card["parent"], card["fingerprint"]) == ("tiny", base.fingerprint)


@pytest.mark.parametrize(
    ("model", "adapter"), [("tiny", None), ("first", "one"), ("second", "two"), ("plain", None)]
)
def test_completions_are_the_engines(
    client: openai.OpenAI, base: LoadedBase, model: str, adapter: str | None
) -> None:
    prompt = base.codec.tokenizer.encode("The quick", bos=True)
    routing = AdapterRouting.all_rows(adapter) if adapter else None
    want = generate(base, [prompt], Sampling(max_tokens=12), routing)[0]
    got = client.completions.create(model=model, prompt="The quick", max_tokens=12, temperature=0)
    assert got.model == model
    assert (got.choices[0].text, got.choices[0].finish_reason) == (want.text, want.finish)
    assert got.usage is not None
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (len(prompt), len(want.ids))


def test_the_adapters_differ(client: openai.OpenAI) -> None:
    said = {
        m: client.completions.create(model=m, prompt="The", max_tokens=16, temperature=0).choices[0].text
        for m in ("tiny", "first", "second")
    }
    assert len(set(said.values())) == 3


def test_chat_is_the_engines(client: openai.OpenAI, base: LoadedBase) -> None:
    want = generate(base, [base.codec.chat_ids(TALK)], Sampling(max_tokens=10))[0]
    got = client.chat.completions.create(model="tiny", messages=TALK, max_completion_tokens=10, temperature=0)
    assert got.choices[0].message.role == "assistant"
    assert (got.choices[0].message.content, got.choices[0].finish_reason) == (want.text, want.finish)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Is "}, {"type": "text", "text": "it?"}]}]
    again = client.chat.completions.create(
        model="tiny",
        messages=[TALK[0], *parts],  # type: ignore[list-item]
        max_tokens=10,
        temperature=0,
    )
    assert again.choices[0].message.content == want.text


def test_streams_joined_are_the_whole(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"temperature": 1.0, "seed": 3, "max_tokens": 40, "stop": ["e", "o "]}
    whole = client.chat.completions.create(model="first", messages=TALK, **asked)
    chunks = list(
        client.chat.completions.create(
            model="first", messages=TALK, stream=True, stream_options={"include_usage": True}, **asked
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (
        "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        == whole.choices[0].message.content
    )
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage
    assert all(c.usage is None for c in chunks[:-1])

    text = client.completions.create(model="tiny", prompt=["The", "def add"], **asked)
    parts = ["", ""]
    for c in client.completions.create(model="tiny", prompt=["The", "def add"], stream=True, **asked):
        parts[c.choices[0].index] += c.choices[0].text
    assert parts == [c.text for c in text.choices]


def test_a_stream_ends_with_done_and_has_its_type(url: str) -> None:
    body = json.dumps({"model": "tiny", "prompt": "The", "max_tokens": 2, "stream": True}).encode()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    connection.request("POST", "/v1/completions", body)
    answer = connection.getresponse()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.read().endswith(b"\n\ndata: [DONE]\n\n")
    connection.close()


def test_logprobs(client: openai.OpenAI, base: LoadedBase) -> None:
    prompt = base.codec.tokenizer.encode("The", bos=True)
    want = generate(base, [prompt], Sampling(max_tokens=5, logprobs=2))[0]
    got = client.completions.create(
        model="tiny", prompt=prompt, max_tokens=5, temperature=0, logprobs=2
    ).choices[0]
    assert got.logprobs is not None
    assert got.logprobs.token_logprobs == pytest.approx(want.logprobs)
    assert [len(t) for t in got.logprobs.top_logprobs or []] == [2] * 5
    assert len(got.logprobs.text_offset or []) == len(got.logprobs.tokens or []) == 5
    chat = client.chat.completions.create(
        model="tiny", messages=TALK, max_tokens=3, temperature=0, logprobs=True, top_logprobs=1
    ).choices[0]
    assert chat.logprobs is not None
    for token in chat.logprobs.content or []:
        assert token.logprob == token.top_logprobs[0].logprob  # greedy
    stream = client.completions.create(
        model="tiny", prompt="The", max_tokens=5, temperature=0, logprobs=0, stream=True
    )
    streamed = [
        p for c in stream if c.choices[0].logprobs for p in c.choices[0].logprobs.token_logprobs or []
    ]
    assert streamed == pytest.approx(want.logprobs)


def test_echo_scores_the_prompt_without_a_new_token(client: openai.OpenAI) -> None:
    got = client.completions.create(model="tiny", prompt="The dog", max_tokens=0, echo=True, logprobs=0)
    assert got.choices[0].text == "The dog"
    assert got.usage is not None
    assert got.usage.completion_tokens == 0


def test_an_unknown_model_is_404_and_names_the_known(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as e:
        client.completions.create(model="tinny", prompt="a")
    assert e.value.code == "model_not_found"
    assert "tiny, first, second, plain" in e.value.message


def test_classifiers_answer_at_their_own_path_only(url: str, client: openai.OpenAI) -> None:
    def ask(**body: Any) -> tuple[int, dict[str, Any], Any]:
        return raw(url, "POST", "/v1/classify", json.dumps(body).encode())

    status, found, _ = ask(model="sorter", input=["a", "abcd"])
    assert status == 200
    assert [d["label"] for d in found["data"]] == ["short", "long"]
    assert found["data"][1] == {"index": 1, "label": "long", "scores": {"short": 0.25}}
    assert ask(model="sorter", input="a")[1]["data"][0]["label"] == "short"
    for wrong in ({"input": []}, {"input": [3]}, {"input": ["a"] * 257}, {}):
        assert ask(model="sorter", **wrong)[0] == 400
    status, found, _ = ask(model="tiny", input="a")
    assert status == 400
    assert "/v1/completions" in found["error"]["message"]
    assert ask(model="nothing", input="a")[0] == 404
    with pytest.raises(openai.BadRequestError, match="/v1/classify"):
        client.completions.create(model="sorter", prompt="a")


def test_a_task_of_any_columns_answers_at_its_path(url: str, client: openai.OpenAI, base: LoadedBase) -> None:
    def ask(given: Any, **more: Any) -> tuple[int, dict[str, Any]]:
        status, found, _ = raw(
            url, "POST", "/v1/pick", json.dumps({"model": "picker", "input": given, **more}).encode()
        )
        return status, found

    row = {"query": "q", "passages": ["a", "b"]}
    status, found = ask([row, {**row, "passages": ["c"]}])
    assert status == 200 and [d["best"] for d in found["data"]] == ["a", "c"]
    assert found["task"] == "pick" and found["system_fingerprint"] == base.fingerprint
    assert ask(row)[1]["data"] == [{"index": 0, "best": "a", "of": "q"}]
    assert ask({"query": "q"}, variables={"x": "y"})[0] == 400
    for wrong, said in [
        ("text", "input is a text, but this model reads query, passages"),
        ({"query": "q"}, "input has no 'passages'"),
        ([row, {"passages": ["a"]}], "input.1 has no 'query'"),
        ({**row, "grades": ["1"]}, "input has 'grades'"),
        ({**row, "passages": "a"}, "input: 'passages' is not a list of 1 to 256 texts"),
        ({**row, "passages": []}, "'passages' is not a list of 1 to 256 texts"),
        ({**row, "passages": ["a"] * 257}, "'passages' is not a list of 1 to 256 texts"),
        ({**row, "query": ["q"]}, "input: 'query' is not a text"),
        ({**row, "passages": [{"a": 1}]}, "'passages' is not a list of 1 to 256 texts"),
        ({**row, "query": True}, "input: 'query' is not a text"),
        ([3], "input.0 is neither a text nor an object of columns"),
        ([row] * 257, "input has 257 items; send 1 to 256"),
        (None, "input"),
    ]:
        status, found = ask(wrong)
        assert status == 400 and said in found["error"]["message"], (wrong, found)
        assert (
            set(found["error"]) == {"message", "type", "param", "code"} and found["error"]["param"] == "input"
        )
    card = client.models.retrieve("picker").model_dump()
    assert (card["task"], card["path"], card["parent"]) == ("pick", "/v1/pick", "tiny")
    body = json.dumps({"model": "picker", "input": {**row, "query": "q" * BODY}}).encode()
    assert raw(url, "POST", "/v1/pick", body)[0] == 413


@pytest.mark.parametrize("path", ["/v1/models", "/v1/Pick", "/v1/a/b", "/v2/a", "/v1/chat/completions"])
def test_a_task_may_not_answer_where_the_server_does(base: LoadedBase, path: str) -> None:
    with pytest.raises(UserError, match=f"a task cannot be served at {path}"):
        create_app(base, "tiny", {}, {"x": TaskModel("x", path, first)})


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_too_long_is_400_before_anything_is_sent(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(model="tiny", prompt=[5] * CONTEXT, stream=stream)
    assert e.value.code == "context_length_exceeded"
    assert str(CONTEXT) in e.value.message


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n": 2}, "'n'"),
        ({"tools": [{}]}, "'tools'"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"presence_penalty": 0.5}, "'presence_penalty'"),
        ({"chat_template": "{{ 1 }}"}, "'chat_template'"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate"),
        ({"messages": [{"role": "\ud800", "content": ""}]}, "surrogate"),
        ({"model": 3}, "model"),
        ({"logprobs": 3}, "logprobs"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(url: str, change: dict[str, Any], word: str) -> None:
    body = {"model": "tiny", "messages": TALK, "max_tokens": 1} | change
    status, answer, _ = raw(url, "POST", "/v1/chat/completions", json.dumps(body).encode())
    assert status == 400
    assert word in answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"


def test_neutral_and_unknown_fields_are_ignored(client: openai.OpenAI) -> None:
    got = client.chat.completions.create(
        model="tiny",
        messages=TALK,
        max_tokens=1,
        n=1,
        user="me",
        tools=[],
        presence_penalty=0,
        extra_body={"x": 1},
    )
    assert len(got.choices) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/completions", b"{", 400),
        ("POST", "/v1/completions", b"\xff\xfe", 400),
        ("POST", "/v1/completions", b"[" * 100_000, 400),
        ("POST", "/v1/completions", b"[1]", 400),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": "a", "temperature": NaN}', 400),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": []}', 400),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": [-1]}', 400),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": [[1], [1.5]]}', 400),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": "a", "echo": true, "stream": true}', 400),
        ("POST", "/v1/completions", b" " * (BODY + 1), 413),
        ("GET", "/v1/completions", b"", 405),
        ("GET", "/v1/nothing", b"", 404),
        ("GET", "/v1/models/nothing", b"", 404),
    ],
)
def test_bad_requests_get_openais_error_shape(
    url: str, method: str, path: str, body: bytes, status: int
) -> None:
    got, answer, _ = raw(url, method, path, body)
    assert got == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer["error"]["message"]
    assert raw(url, "GET", "/health")[0] == 200


def test_a_client_that_leaves_stops_its_stream(client: openai.OpenAI, url: str) -> None:
    stream = client.chat.completions.create(model="tiny", messages=TALK, stream=True, temperature=0)
    for n, _ in enumerate(stream):
        if n == 3:
            break
    assert raw(url, "GET", "/health")[1]["running"] == 1  # and the server answers while it generates
    stream.close()
    wait_idle(url)


def test_a_client_that_leaves_stops_an_answer_that_does_not_stream(url: str) -> None:
    body = json.dumps({"model": "tiny", "messages": TALK, "temperature": 0}).encode()
    connections = []
    for _ in range(3):  # one runs and two wait
        connections.append(http.client.HTTPConnection(url.removeprefix("http://"), timeout=600))
        connections[-1].request("POST", "/v1/chat/completions", body)
    end = time.monotonic() + 600
    while raw(url, "GET", "/health")[1]["waiting"] < 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert raw(url, "GET", "/health")[1]["running"] == 1
    for connection in connections:
        connection.close()
    wait_idle(url)


def test_names_must_be_plain_and_differ(base: LoadedBase) -> None:
    for name in ("", "../x", "a/b", "-a", "a" * 65, "ä"):
        with pytest.raises(UserError, match="valid model name"):
            create_app(base, "tiny", {name: None})
    for clash in ({"adapters": {"tiny": None}}, {"adapters": {"a": None}, "tasks": {"a": ASKED["sorter"]}}):
        with pytest.raises(UserError, match="two models are called"):
            create_app(base, "tiny", **clash)


def test_a_failing_request_is_500_and_the_next_is_served(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("secret at 0x7f00")
        yield

    with monkeypatch.context() as m:
        m.setattr("onebase.serve.app.stream", fail)
        with pytest.raises(openai.InternalServerError) as e:
            client.completions.create(model="tiny", prompt="a")
        assert "secret" not in e.value.message
        with pytest.raises(openai.APIError) as s:
            list(client.completions.create(model="tiny", prompt="a", stream=True))
        assert "secret" not in s.value.message
    assert client.completions.create(model="tiny", prompt="a", max_tokens=1).choices
