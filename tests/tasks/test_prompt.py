"""The templates of saved prompts: a strict small language, and nothing of a value is ever read as a template."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onebase.config import from_dict
from onebase.config_plain import to_dict, without_defaults
from onebase.errors import ConfigError, DataError
from onebase.methods import prompt
from onebase.methods.prompt import PromptConfig, ShotsConfig, filled, names
from tests.helpers import tiny_base

NAME = st.one_of(
    st.sampled_from(["a", "b", "ab"]), st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
)
VALUE = st.one_of(st.text(max_size=8), st.text(alphabet="{}ab", max_size=8))
PIECES = st.lists(st.one_of(st.text(max_size=8), NAME.map(lambda n: (n,))), max_size=8)


@given(PIECES, st.data())
def test_what_is_written_comes_back(pieces: list[str | tuple[str]], data: st.DataObject) -> None:
    """Text with its braces doubled stays text, a variable becomes its value, whatever is in it."""
    values = {p[0]: data.draw(VALUE) for p in pieces if isinstance(p, tuple)}
    template = "".join(
        f"{{{p[0]}}}" if isinstance(p, tuple) else p.replace("{", "{{").replace("}", "}}") for p in pieces
    )
    wanted = "".join(values[p[0]] if isinstance(p, tuple) else p for p in pieces)
    assert filled(template, values) == wanted
    assert list(names(template)) == [p[0] for p in pieces if isinstance(p, tuple)]


@given(st.text(alphabet="{}ab.[]!:0 ", max_size=12))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    """Nothing else happens, and what is accepted gives text of the same stretches."""
    try:
        found = names(text)
    except ConfigError:
        with pytest.raises(ConfigError, match="lone"):
            filled(text, {})
        return
    made = filled(text, dict.fromkeys(found, "{x}"))
    assert made.count("{x}") >= len(found)


@pytest.mark.parametrize(
    "template", ["{", "a } b", "{}", "{0}", "{text.__class__}", "{text!r}", "{text:>9}", "{text[0]}", "{{a}"]
)
def test_what_format_would_do_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="lone"):
        PromptConfig(template=template)


def test_a_value_is_no_template() -> None:
    assert filled("{a}{b}", {"a": "{b}", "b": "{a}{{"}) == "{b}{a}{{"


def test_all_that_is_missing_is_named() -> None:
    with pytest.raises(DataError, match="'b', 'c', given: a"):
        filled("{a} {b} {c}", {"a": "x"})


def test_messages_have_variables_too() -> None:
    cfg = from_dict(
        PromptConfig,
        {"template": [{"role": "system", "content": "{who}"}, {"role": "user", "content": "{b} {who}"}]},
    )
    assert cfg.variables == ("who", "b")
    assert from_dict(PromptConfig, to_dict(cfg)) == cfg


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"template": "{answer}"}, "another name"),
        ({"template": "{examples}{text}", "shots": {"n": 2}}, "there is no template for an example"),
        ({"template": "{text}", "shots": {"n": 2, "example": "{text}"}}, "has no variable for the answer"),
        ({"template": "{text}", "shots": {"n": -1}}, "at least 0"),
        ({"template": "{text}", "shots": {"select": "nearest"}}, "one of similar"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as e:
        from_dict(PromptConfig, fields)
    assert said in f"{e.value.cause} {e.value.remedy}"


def test_the_example_has_variables_of_its_own() -> None:
    cfg = PromptConfig(
        template="{examples}{text}", shots=ShotsConfig(n=1, example="{text} ({why}): {answer}")
    )
    assert cfg.variables == ("text", "why")


def test_old_adapters_keep_their_fingerprint() -> None:
    """New fields are left out where they have their defaults."""
    cfg = PromptConfig(template="{text}", answers={"a": " b"}, bias={"a": 0.5})
    assert without_defaults(cfg) == {"template": "{text}", "answers": {"a": " b"}, "bias": {"a": 0.5}}


def test_vectors_are_those_of_the_examples() -> None:
    base = tiny_base()
    cfg = PromptConfig(template="{text}", shots=ShotsConfig(n=1), examples=({"text": "a", "answer": "b"},))
    prompt.put(base.model, "x", cfg, {prompt.KEY: torch.ones(1, 32)})
    assert prompt.tensors(base.model, "x")[prompt.KEY].shape == (1, 32)
    prompt.remove(base.model, "x")
    assert not base.model.virtual and prompt.tensors(base.model, "x") == {}
    with pytest.raises(ConfigError, match="for 1 examples"):
        prompt.put(base.model, "x", cfg, {})
