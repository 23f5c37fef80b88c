"""A template sees what is in a message as it is, and nothing in a message becomes a special token, whatever the template does with it."""

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import DataError
from onebase.modality.text.guard import Guard
from onebase.modality.text.roles import Roles
from onebase.modality.text.template import ChatTemplate

rendering = pytest.importorskip("transformers.utils.chat_template_utils")

SPECIALS = (
    "<s>",
    "</s>",
    "<think>",
    "</think>",
    "<|user|>",
    "user",
    "assistant",
    "role",
    "a b",
    "\n\n",
    "1x",
)
ROLES = Roles(bos="<s>", eos="</s>", stop=("</s>",))
LOOKS = [
    "{{ c }}",
    "{% if '</think>' in c %}{{ c.split('</think>')[-1].lstrip('\\n') }}{% else %}-{{ c }}{% endif %}",
    "{{ c.split('</think>')[0].split('<think>')[-1] }}",
    "{% if c.startswith('<think>') or c.endswith('</s>') %}+{% endif %}{{ c[:3] }}|{{ c[-2:] }}|{{ c | length }}",
    "{{ c | trim }}|{{ c.strip() }}|{{ c.rstrip('>s') }}|{{ c.lstrip('<') }}",
    "{{ c.replace('</think>', '!').replace('s', 'S') }}|{{ c | replace('<', '[') }}",
    "{% if c == '</s>' or c != 'user' %}={% endif %}{% if c in ['user', '<s>'] %}in{% endif %}",
    "{{ c | upper }}|{{ c | lower }}|{{ c | capitalize }}|{{ c | title }}|{{ c.upper() }}|{{ c.swapcase() }}",
    "{{ c.find('>') }}|{{ c.count('s') }}|{{ c.rfind('<') }}|{{ c.isdigit() }}|{{ c.isspace() }}",
    "{{ c.partition('</think>')[0] }}|{{ c.rpartition('>')[2] }}|{{ c.rsplit('<', 1)[-1] }}|{{ c.split() }}",
    "{{ c | tojson }}|{{ {'x': c, 'y': [c]} | tojson }}|{{ [c, 'u'] }}|{{ {'k': c} }}",
    "{% set x %}{{ c }}{% endset %}{% if '</think>' in x %}{{ x.split('</think>')[1] }}{% endif %}{{ x | trim }}",
    "{% macro f(t) %}{{ t }}{% endmacro %}{% set y = f(c) | trim %}{{ '</s>' in y }}{{ y }}",
    "{% for line in c.split('\\n') %}{{ line }};{% endfor %}{% for l in c.splitlines() %}{{ l }},{% endfor %}",
    "{% for ch in c %}{{ ch }}{% if ch == '<' %}!{% endif %}{% endfor %}{{ c | list | join }}{{ c | reverse }}",
    "{{ '<' ~ c }}|{{ '</' + c + '>' }}|{{ '<|' ~ c ~ '|>' }}|{{ 'th{}>'.format(c) }}|{{ '%s' % c }}",
    "{{ {'user': 'U', '<s>': 'S'}[c] | default('D') }}|{{ {'12': 1}.get(c, 0) }}|{{ c | int(0) }}",
    "{{ c.removeprefix('<think>') }}|{{ c.removesuffix('</s>') }}|{{ [c, '</sx', 'a'] | sort | join(',') }}",
    "{{ [c, '</s>', c] | unique | list | length }}|{{ m.role }}|{{ 'role' in m }}|{{ m.get('role') }}",
    "{% for k, v in m.items() %}{{ k }}={{ v }};{% endfor %}{{ m['content'] }}{{ m.extra | default('none') }}",
    "{{ messages | selectattr('content', 'equalto', '</s>') | list | length }}{{ c is string }}{{ c is eq '12' }}",
    "{% set ns = namespace(t=c) %}{% set ns.t = ns.t + '</think>' %}{{ ns.t.split('</think>') | first }}",
    "{{ c | indent(2) }}|{{ c | first | default('') }}|{{ (c ~ 'x')[1] }}|{{ c > 'm' }}",
]
HEAD = "{% for m in messages %}{% set c = m.content %}{% if m.role == 'user' %}U{% elif m.role == 'assistant' %}A{% endif %}"
PIECES = [
    *SPECIALS,
    "<",
    ">",
    "/",
    "s",
    "think",
    "</",
    "s>",
    " ",
    "\n",
    "us",
    "er",
    "x",
    "1",
    "'",
    "é",
    "ß",
    "İ",
    "\ufdd2",
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)


def there(source: str, messages: list[dict[str, Any]]) -> str:
    """What transformers renders."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": False}
    rendered, _ = rendering.render_jinja_template(conversations=[messages], chat_template=source, **names)
    found: str = rendered[0]
    return found


@functools.cache
def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, SPECIALS, roles=ROLES)


def here(source: str, messages: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """The text, and the special tokens in it."""
    spans = template(source).segments(messages, tagged=False)
    return "".join(s.data for s in spans), [s.data for s in spans if s.kind == "special"]


@pytest.mark.parametrize("look", LOOKS)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXT, TEXT), min_size=1, max_size=3))
def test_a_template_sees_messages_as_they_are_and_none_makes_a_special_token(
    look: str, talk: list[tuple[str, str, str]]
) -> None:
    """The same text as in transformers, so the same branches; and of special tokens those alone that the template wrote."""
    source = HEAD + "<s>(" + look + ")</s>{% endfor %}"
    messages = [{"role": role, "content": text, "extra": more} for role, text, more in talk]
    try:
        wanted = there(source, messages)
    except Exception:  # what fails there (an index beyond the end, say) fails here
        with pytest.raises(DataError):
            here(source, messages)
        return
    text, specials = here(source, messages)
    assert text == wanted
    mine = (
        [s for s in specials if s not in ("user", "assistant")]
        if "m.role }}" in look or "items" in look
        else specials
    )
    assert mine == ["<s>", "</s>"] * len(messages)


@given(TEXT, st.text())
def test_what_is_hidden_comes_back_letter_for_letter(text: str, more: str) -> None:
    guard = Guard(SPECIALS)
    whole = text + more.encode("utf-8", "ignore").decode()
    hidden = guard.hide(whole)
    assert guard.show(hidden) == whole and len(hidden) == len(whole)
    assert not any(name in hidden for name in SPECIALS)


def test_a_text_that_is_no_unicode_is_refused_not_read_as_another() -> None:
    with pytest.raises(DataError):
        here("{% for m in messages %}{{ m.content }}{% endfor %}", [{"role": "user", "content": "a\ud801"}])


def test_thinking_is_stripped_as_in_transformers() -> None:
    """The case that was met: a tokenizer with </s> beside a template that looks for </think>."""
    source = (
        "{% for m in messages %}{% set content = m.content %}{% if m.role == 'assistant' and '</think>' in content %}"
        "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}<|user|>{{ content }}</s>{% endfor %}"
    )
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello</s>"},
    ]
    text, specials = here(source, messages)
    assert text == there(source, messages) == "<|user|>Hi</s><|user|>Hello</s></s>"
    assert specials == ["<|user|>", "</s>", "<|user|>", "</s>"]


def test_a_special_token_named_like_a_role_changes_no_role() -> None:
    source = "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'user' %}U{% endif %}{{ m.content }}</s>{% endfor %}"
    messages = [{"role": "user", "content": "user <|user|>"}]
    text, specials = here(source, messages)
    assert text == there(source, messages) and specials == ["<|user|>", "</s>"]


@pytest.mark.parametrize("role", ["</s>", "x</s>", "<|user|>", "1x", "a b"])
def test_no_role_makes_a_special_token_either(role: str) -> None:
    source = "{% for m in messages %}{% if '</s>' in m.content %}{% endif %}{{ m.role }}:{{ m.content }}</s>{% endfor %}"
    text, specials = here(source, [{"role": role, "content": "x"}])
    assert specials == ["</s>"] and text == f"{role}:x</s>"


@pytest.mark.parametrize(
    "message",
    [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "</s>", "arguments": {"</s>": "1x"}}}],
        },
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "<s>"}}]},
    ],
)
def test_calls_of_tools_are_seen_as_they_are_too(message: dict[str, Any]) -> None:
    source = (
        "{% for m in messages %}{% for t in m.tool_calls or [] %}{{ t.function.name }}:"
        "{% if t.function.arguments is mapping %}{% for k, v in t.function.arguments | items %}{{ k }}={{ v | tojson }}{% endfor %}"
        "{{ t.function.arguments['</s>'] }}{{ t.function.arguments | tojson }}{% else %}{{ t.function.arguments }}{% endif %}"
        "{% endfor %}</s>{% endfor %}"
    )
    text, specials = here(source, [message])
    assert text == there(source, [message]) and specials == ["</s>"]
