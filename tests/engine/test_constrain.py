"""Constrained decoding: what comes out fits, whatever the weights, the vocabulary and the schema; what cannot be held is refused."""

import json
import random
import re
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onebase.base.folder import LoadedBase
from onebase.engine import Completion, Sampling, generate, stream
from onebase.engine.constrain import LETTERS, Constraint, guides
from onebase.errors import UserError
from onebase.formats.hf.tokenizer_files import read_codec
from onebase.modality.text import TextCodec
from tests.formats.words import write_words
from tests.helpers import tiny_base

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "n": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "n", "tags"],
    "additionalProperties": False,
}


@cache
def base() -> LoadedBase:
    return tiny_base(context=256)


@cache
def prompt() -> list[int]:
    return base().codec.tokenizer.encode("The quick", bos=True)


def answers(n: int, constraint: Constraint, **options: Any) -> list[Completion]:
    """n sampled answers of the random base."""
    each = [Sampling(temperature=1.0, seed=i, constraint=constraint, **options) for i in range(n)]
    return generate(base(), [prompt()] * n, each)


def check(text: str, schema: Any) -> None:
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def walk(codec: TextCodec, constraint: Constraint, seed: int, most: int = 120) -> tuple[str, bool]:
    """An answer of a base that thinks all tokens equally likely, and whether it ended; after `most` tokens it ends where it can."""
    (guide,) = guides(codec, [constraint])
    assert guide is not None
    draw, ids = random.Random(seed), []
    closing = codec.tokenizer.stop_ids
    for _ in range(3 * most):
        allowed = guide.allowed_V().nonzero()[0].tolist()
        end = [i for i in allowed if i in closing]
        # Byte for byte the quickest way out of a string or a list is to say little.
        quick = [i for i in allowed if codec.tokenizer.bytes_of(i)[:1] in (b'"', b"]", b"}")]
        late = len(ids) > most
        id = draw.choice((end or quick or allowed) if late else allowed)
        if id in closing:
            return b"".join(map(codec.tokenizer.bytes_of, ids)).decode(), True
        ids.append(id)
        if guide.push(id):
            return b"".join(map(codec.tokenizer.bytes_of, ids)).decode(), True
    return "", False


def test_a_hundred_of_a_hundred_answers_are_valid() -> None:
    found = answers(100, Constraint(schema=PERSON), max_tokens=200)
    assert [f.finish for f in found] == ["stop"] * 100
    for f in found:
        check(f.text, PERSON)
    assert len({f.text for f in found}) > 90


scalars: st.SearchStrategy[Any] = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda a, b: {"type": "integer", "minimum": a, "maximum": a + b},
        st.integers(-99, 99),
        st.integers(0, 50),
    ),
    st.builds(lambda a: {"type": "number", "exclusiveMinimum": a, "maximum": a + 5}, st.integers(-9, 9)),
    st.builds(
        lambda a, b: {"type": "string", "minLength": a, "maxLength": a + b},
        st.integers(0, 3),
        st.integers(0, 4),
    ),
    st.sampled_from(["^[a-c]+$", "b", r"^\d{2,3}-x$", "^(yes|no)$"]).map(
        lambda p: {"type": "string", "pattern": p}
    ),
    st.lists(
        st.one_of(st.text(max_size=4), st.integers(-9, 9), st.none(), st.booleans()), min_size=1, max_size=3
    ).map(lambda v: {"enum": v}),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2).map(lambda v: {"const": v}),
)


def _object(properties: dict[str, Any], needed: set[int], more: Any) -> dict[str, Any]:
    required = [k for i, k in enumerate(properties) if i in needed]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": more}


schemas = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(
            _object,
            st.dictionaries(st.text(max_size=4), inner, max_size=3),
            st.sets(st.integers(0, 2)),
            st.one_of(st.just(False), inner),
        ),
        st.builds(
            lambda i, a, b: {"type": "array", "items": i, "minItems": a, "maxItems": a + b},
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each}),
        st.builds(
            lambda i: {
                "$defs": {"x": i},
                "type": "array",
                "prefixItems": [{"$ref": "#/$defs/x"}],
                "maxItems": 2,
            },
            scalars,
        ),
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=schemas, seed=st.integers(0, 9))
def test_what_any_schema_allows_is_valid_or_the_schema_is_refused(schema: Any, seed: int) -> None:
    if "$ref" in json.dumps(schema) and "$defs" not in schema:
        return  # the path of the reference holds at the top only
    try:
        text, ended = walk(base().codec, Constraint(schema=schema), seed)
    except UserError as e:
        if "control character" in e.cause:
            return
        raise
    if ended:
        check(text, schema)


@pytest.mark.parametrize("kind", ["gpt2", "qwen", "llama3", "phi3", "llama2", "mistral", "gemma"])
def test_every_kind_of_vocabulary_can_be_followed(kind: str, tmp_path: Path) -> None:
    write_words(tmp_path, kind)
    codec = read_codec(tmp_path, 2000)
    for seed in range(8):
        text, ended = walk(codec, Constraint(schema=PERSON), seed)
        assert ended
        check(text, PERSON)


def test_a_vocabulary_without_bytes_of_its_own_is_refused(tmp_path: Path) -> None:
    write_words(tmp_path, "bert")
    with pytest.raises(UserError, match="WordPiece"):
        guides(read_codec(tmp_path, 2000), [Constraint(regex="a")])


def test_a_vocabulary_that_cannot_write_the_form_says_so(tmp_path: Path) -> None:
    write_words(tmp_path, "unigram")  # no token for a brace, and none for bytes
    with pytest.raises(UserError, match="no token of this vocabulary"):
        guides(read_codec(tmp_path, 2000), [Constraint(schema={"type": "object"})])


def test_the_text_of_a_sentencepiece_answer_is_what_was_allowed(tmp_path: Path) -> None:
    """Free answers lose the space that such a tokenizer puts before a text; the space of a form is the form's."""
    write_words(tmp_path, "llama2")
    codec = read_codec(tmp_path, 2000)
    made = tiny_base(vocab_size=codec.tokenizer.vocab_size)
    made.text_codec = codec
    (found,) = generate(
        made, [codec.tokenizer.begun([])], Sampling(constraint=Constraint(regex=" (the|a) fox"))
    )
    assert re.fullmatch(" (the|a) fox", found.text)


def test_only_a_complete_answer_can_close_and_special_tokens_are_no_text() -> None:
    codec = base().codec
    tokenizer = codec.tokenizer
    (guide,) = guides(codec, [Constraint(regex="ab?|<.eos.>")])
    assert guide is not None
    hidden = tokenizer.special_ids
    assert not hidden & set(guide.allowed_V().nonzero()[0].tolist())
    assert not guide.push(tokenizer.encode("a")[0])
    allowed = set(guide.allowed_V().nonzero()[0].tolist())
    assert allowed & hidden == set(tokenizer.stop_ids)
    assert tokenizer.encode("b")[0] in allowed
    assert guide.push(tokenizer.encode("b")[0])  # nothing can follow


def test_the_name_of_a_special_token_is_written_with_letters() -> None:
    (found,) = answers(1, Constraint(regex=r"x<\|eos\|>y"), max_tokens=40)
    assert found.text == "x<|eos|>y"
    assert not set(found.ids) & base().codec.tokenizer.special_ids


def test_rows_beyond_the_vocabulary_are_never_chosen() -> None:
    padded = tiny_base(vocab_size=base().codec.tokenizer.vocab_size + 84, context=128)
    with torch.no_grad():
        padded.model.text.head_weight_VD[-84:] *= 50
    found = generate(padded, [prompt()], Sampling(constraint=Constraint(schema=PERSON), max_tokens=100))[0]
    assert max(found.ids) < padded.codec.tokenizer.vocab_size


def test_each_row_has_its_own_form_and_is_the_same_alone() -> None:
    forms = [None, Constraint(regex="a{3,}b"), Constraint(schema=PERSON), Constraint(regex="(yes|no)"), None]
    each = [Sampling(max_tokens=90, temperature=1.0, seed=i, constraint=c) for i, c in enumerate(forms)]
    together = generate(base(), [prompt()] * 5, each)
    assert together == [generate(base(), [prompt()], s)[0] for s in each]
    assert [f.finish for f in together[1:4]] == ["stop"] * 3
    assert together[3].text in ("yes", "no")
    pieces = [p.text for step in stream(base(), [prompt()], each[2]) for p in step]
    assert "".join(pieces) == together[2].text


def test_greedy_takes_the_likeliest_token_that_is_allowed() -> None:
    options = Sampling(max_tokens=1, constraint=Constraint(regex="[a-c]z"), logprobs=0)
    (found,) = generate(base(), [prompt()], options)
    (free,) = generate(base(), [prompt()], Sampling(max_tokens=1, logprobs=base().model.cfg.text.vocab_size))
    logp = dict(free.top[0])
    allowed = [
        i for i in logp if base().codec.tokenizer.bytes_of(i) in (b"a", b"b", b"c", b"az", b"bz", b"cz")
    ]
    assert found.ids[0] == max(allowed, key=lambda i: logp[i])
    # The model's own: what it thought before tokens were ruled out.
    assert found.logprobs[0] == pytest.approx(logp[found.ids[0]], abs=1e-5)


def test_a_limit_cuts_and_says_so() -> None:
    (found,) = answers(1, Constraint(schema=PERSON), max_tokens=5)
    assert (found.finish, len(found.ids)) == ("length", 5)


def test_a_grammar_in_larks_syntax() -> None:
    grammar = 'start: "(" sum ")"\nsum: /[0-9]/ | sum ("+" | "-") /[0-9]/'
    found = answers(5, Constraint(grammar=grammar), max_tokens=100)
    for f in found:
        assert f.finish == "length" or re.fullmatch(r"\(\d([+-]\d)*\)", f.text)
    assert "stop" in {f.finish for f in found}


def test_names_cannot_be_written_twice_by_escapes() -> None:
    """The name "a" written with an escape would be another property to the grammar and the same one to who reads the JSON."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": {"type": "string"},
    }
    (guide,) = guides(base().codec, [Constraint(schema=schema)])
    assert guide is not None
    for letter in '{"\\':
        guide.push(base().codec.tokenizer.encode(letter)[0])
    assert not guide.allowed_V()[base().codec.tokenizer.encode("u")[0]]


def test_stop_strings_are_refused_beside_a_form() -> None:
    with pytest.raises(UserError, match="stop"):
        Sampling(stop=("x",), constraint=Constraint(regex="a"))


def test_json_is_compact_unless_white_space_is_asked_for() -> None:
    def between(text: str) -> str:
        """What is not within strings."""
        return re.sub(r'"(?:\\.|[^"\\])*"', "", text)

    for f in answers(30, Constraint(schema=PERSON), max_tokens=200):
        check(f.text, PERSON)
        assert not re.search(r"\s", between(f.text)), f.text
    loose = [f.text for f in answers(30, Constraint(schema=PERSON, spaces=True), max_tokens=300)]
    assert any(re.search(r"\s", between(text)) for text in loose)
    for text in loose:
        check(text, PERSON)


@pytest.mark.parametrize(
    ("regex", "held"),
    [
        ("^[0-9]+$", "[0-9]+"),
        (r"\A(a|b)\z", "(a|b)"),
        ("ab$", "ab"),
        (r"[$^]\$", r"[$^]\$"),
        (r"\^a[^$]", r"\^a[^$]"),
        (r"a\\$", r"a\\"),
    ],
)
def test_a_regex_matches_the_whole_answer_with_its_anchors_or_without(regex: str, held: str) -> None:
    assert Constraint(regex=regex).text == held
    (guide,) = guides(base().codec, [Constraint(regex=regex)])
    assert guide is not None


@pytest.mark.parametrize("regex", ["a|^b", "a$b", r"\bfoo", "(^a)", r"foo\b"])
def test_an_anchor_elsewhere_is_explained(regex: str) -> None:
    with pytest.raises(UserError, match="where it is not supported") as e:
        Constraint(regex=regex)
    assert "matches the whole answer" in e.value.remedy


def test_a_pattern_of_a_schema_that_holds_no_whole_text_is_told(caplog: pytest.LogCaptureFixture) -> None:
    Constraint(schema={"type": "string", "pattern": "^[A-Z]{3}$"})
    assert not caplog.records
    for _ in range(2):
        Constraint(schema={"type": "string", "pattern": "[A-Z]{3}"})
    assert [r.getMessage() for r in caplog.records if "no ^ and $" in r.getMessage()] == [caplog.messages[0]]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "nothing"),
        ({"regex": "a", "schema": {}}, "schema and regex"),
        ({"schema": "{"}, "not JSON"),
        ({"schema": [1]}, "list"),
        ({"schema": {"const": float("nan")}}, "not JSON"),
        ({"schema": {"type": "zebra"}}, "zebra"),
        ({"schema": {"not": {"type": "string"}}}, "not"),
        ({"schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"schema": {"type": "string", "pattern": "(?=a)b"}}, "look-around"),
        ({"schema": {"$ref": "https://example.org/x"}}, "example.org"),
        ({"schema": {"type": "string", "format": "shoe-size"}}, "shoe-size"),
        ({"schema": False}, "bool"),
        ({"schema": {"type": "integer", "minimum": 3, "maximum": 2}}, "Unsatisfiable"),
        ({"schema": {"$ref": "#"}}, "cannot be satisfied"),
        ({"schema": {"type": "object", "minProperties": 2}}, "minProperties"),
        (
            {"schema": {"oneOf": [{"type": "string"}, {"minLength": 1}], "x-guidance": {"lenient": True}}},
            "oneOf",
        ),
        ({"schema": {"enum": ["a\x07"]}}, "control character"),
        ({"schema": {"type": "object", "properties": {"a": {"const": {"\x7f": 1}}}}}, "control character"),
        ({"schema": {"type": "string", "pattern": r"^a\\\x01$"}}, "control character"),
        ({"schema": {"type": "object", "patternProperties": {r"^\u{1}": {}}}}, "control character"),
        ({"regex": "(a"}, "unclosed"),
        ({"regex": r"(a)\1"}, "backreferences"),
        ({"regex": "\ud800"}, "not a text"),
        ({"grammar": "start: nothing"}, "nothing"),
        ({"regex": "a" * (LETTERS + 1)}, "characters"),
    ],
)
def test_what_cannot_be_held_is_refused_before_the_first_token(given: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError) as e:
        stream(base(), [prompt()], Sampling(constraint=Constraint(**given)))
    assert word in e.value.cause
    assert "\n" not in e.value.cause and e.value.remedy


def _nested(n: int) -> str:
    return '{"type":"array","items":' * n + "{}" + "}" * n


def _doubling(word: str, n: int) -> dict[str, Any]:
    names = {f"d{i}": {word: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(n)}
    return {"$defs": names | {f"d{n}": {"type": "object"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    "given",
    [
        {"schema": _nested(100)},
        {"schema": _nested(2500)},
        {"schema": _doubling("anyOf", 60)},
        {"schema": _doubling("allOf", 60)},
        {"schema": {"enum": [f"x{i}" for i in range(5000)]}},
        {"schema": {"type": "object", "properties": {f"p{i}": True for i in range(4000)}}},
        {"schema": {"type": "array", "minItems": 10**12, "maxItems": 10**15}},
        {"schema": {"type": "string", "minLength": 10**6, "maxLength": 10**9}},
        {"schema": {"type": "string", "pattern": "^(a|b)*a(a|b){40}$"}},
        {"regex": "((a{100}){100}){100}"},
        {"regex": "(" * 5000 + "a" + ")" * 5000},
        {"grammar": 'start: start start | "a" | '},
    ],
    ids=lambda g: str(g)[:40],
)
def test_a_hostile_form_is_bounded_in_time(given: dict[str, Any]) -> None:
    """CPU seconds of this process; 3 at most were measured."""
    began, said = time.process_time(), ""
    try:
        (guide,) = guides(base().codec, [Constraint(**given)])
        assert guide is not None
        for _ in range(10):
            guide.push(int(guide.allowed_V().nonzero()[0][0]))
    except UserError as e:
        said = e.cause
    assert len(said) < 400
    assert time.process_time() - began < 10


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UserError, match="llguidance") as e:
        generate(tiny_base(), [prompt()], Sampling(constraint=Constraint(regex="a")))
    assert "onebase[structured]" in e.value.remedy
