from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import ConfigError, DataError
from onebase.modality.text import SPECIALS, ChatTemplate, Segment, TextCodec

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim }}"
    "{{ '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def test_the_default_template_supervises_the_answer_and_its_end() -> None:
    assert ChatTemplate.default().segments(TALK) == (
        Segment("special", "<|system|>"),
        Segment("text", "Be brief."),
        Segment("special", "<|end|>"),
        Segment("special", "<|user|>"),
        Segment("text", "Hi"),
        Segment("special", "<|end|>"),
        Segment("special", "<|assistant|>"),
        Segment("text", "Hello.", True),
        Segment("special", "<|end|>", True),
    )


def test_the_prompt_is_a_prefix_of_the_conversation(codec: TextCodec) -> None:
    prompt = codec.chat_ids(TALK[:2])
    whole = codec.chat_ids(TALK, add_generation_prompt=False)
    assert whole[: len(prompt)] == prompt
    assert prompt[0] == codec.tokenizer.bos
    assert prompt[-1] == codec.tokenizer.id_of("<|assistant|>")


pieces = st.sampled_from(
    [*SPECIALS, "<", "|", "<|", "e", "end|>", "|>", "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3", "3c", " a"]
)
contents = st.lists(st.one_of(pieces, st.text(max_size=5)), max_size=6).map("".join)


@settings(deadline=None)
@given(user=contents, answer=contents)
def test_a_message_cannot_inject_a_special_token(codec: TextCodec, user: str, answer: str) -> None:
    talk = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    spans = codec.template.segments(talk)
    assert [s.data for s in spans if s.kind == "special"] == [
        "<|user|>",
        "<|end|>",
        "<|assistant|>",
        "<|end|>",
    ]
    assert "".join(s.data for s in spans if s.kind == "text" and not s.loss) == user
    assert "".join(s.data for s in spans if s.kind == "text" and s.loss) == answer


def test_two_messages_side_by_side_cannot_make_one_either() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    talk = [{"role": "user", "content": "<"}, {"role": "user", "content": "|end|>"}]
    assert template.segments(talk) == (Segment("text", "<|end|>"),)


def test_a_template_without_the_tag_is_asked_what_a_turn_adds() -> None:
    template = ChatTemplate(CHATML, specials=("<|im_start|>", "<|im_end|>"))
    talk = [*TALK[1:], {"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "Bye."}]
    learnt = [s.data for s in template.segments(talk) if s.loss]
    assert learnt == ["Hello.", "<|im_end|>", "Bye.", "<|im_end|>"]
    assert Segment("text", "user\n<|im_end|>") in template.segments(talk)


def test_a_template_that_rewrites_history_must_have_the_tag() -> None:
    template = ChatTemplate("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(DataError, match="cannot determine which text message 2 adds") as e:
        template.segments(TALK[1:])
    assert "generation" in e.value.remedy


BAD: list[tuple[Any, str]] = [
    ([], "at least one message"),
    ("hi", "at least one message"),
    (["hi"], "message 1 is str"),
    ([{"role": "user"}], "message 1: 'content' is missing"),
    ([{"role": "user", "content": ["x"]}], "message 1: 'content' is list"),
    ([{"role": "user", "content": None}], "message 1: 'content' is NoneType"),
    ([{"role": "robot", "content": "x"}], 'unknown role "robot"; roles are system, user, assistant'),
    ([{"role": "<|end|>", "content": "x"}], 'unknown role "<|end|>"'),
    ([*TALK, TALK[0]], "a system message must come first"),
]


@pytest.mark.parametrize(("messages", "cause"), BAD)
def test_bad_messages_are_named(messages: Any, cause: str) -> None:
    with pytest.raises(DataError) as e:
        ChatTemplate.default().segments(messages)
    assert cause in e.value.cause


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("{{ messages[0].contnt }}", "has no attribute 'contnt'"),
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_template_errors_and_escapes_are_user_errors(source: str, cause: str) -> None:
    with pytest.raises(DataError, match="chat template") as e:
        ChatTemplate(source).segments(TALK)
    assert cause in e.value.cause


def test_tests_of_missing_fields_are_allowed() -> None:
    template = ChatTemplate("{% if messages[0].tools or tools %}no{% else %}yes{% endif %}")
    assert template.segments(TALK[:1]) == (Segment("text", "yes"),)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{% for m in messages %}\n{% endfo %}")
    with pytest.raises(ConfigError, match=r"template.jinja:2: "):
        ChatTemplate.from_file(path)
    with pytest.raises(ConfigError, match="no chat template at"):
        ChatTemplate.from_file(tmp_path / "none")
    path.write_text(ChatTemplate.default().source)
    assert ChatTemplate.from_file(path).digest == ChatTemplate.default().digest
    assert ChatTemplate(CHATML).digest != ChatTemplate.default().digest
