"""Hostile chat templates: refused soon, in little memory; honest ones are what plain Jinja makes of them."""

import functools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from onebase.errors import ConfigError, DataError
from onebase.modality.text.budget import budget
from onebase.modality.text.roles import Roles
from onebase.modality.text.sandbox import Sandboxed
from onebase.modality.text.template import ChatTemplate

FOREIGN = Roles(eos="<|eos|>")
TALK = [{"role": "user", "content": "Hello there. " * 20}]
LONG = "{% set x = namespace(v='aaaaaaaaaaaaaaaaaaaa') %}"
GROWN = LONG + "{% for i in range(16) %}{% set x.v = x.v ~ x.v %}{% endfor %}"  # 1.3 million letters

ATTACKS = {
    # for ever, or nearly so
    "nested loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "loops that are filtered": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "macro calls itself": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "macro tree": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(200) }}",
    "call block": "{% macro m(n) %}{{ caller(n) }}{% endmacro %}{% macro r(n) %}{% call(k) m(n) %}{{ r(k) }}{{ r(k) }}{% endcall %}{% endmacro %}{{ r(1) }}",
    "a block calls itself": "{% block b %}{{ self.b() }}{% endblock %}",
    "lazy filters": "{% for a in range(99999) %}{% set x = range(99999) | map('string') | list %}{% endfor %}",
    "sorting": "{% for a in range(99999) %}{% set x = range(99999) | sort(reverse=true) %}{% endfor %}",
    "slicing": GROWN + "{% for a in range(99999) %}{% set y = x.v[1:] %}{% endfor %}",
    "reading": GROWN + "{% for a in range(99999) %}{% if 'b' in x.v %}{% endif %}{% endfor %}",
    "tests": GROWN + "{% for a in range(99999) %}{% if x.v is lower %}{% endif %}{% endfor %}",
    "methods": GROWN
    + "{% for a in range(99999) %}{% if x.v.endswith('b') or x.v.count('ab') %}{% endif %}{% endfor %}",
    "deep comparison": "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
    "deep hash": "{% set n = namespace(a=(1,)) %}{% for i in range(60) %}{% set n.a = (n.a, n.a) %}{% endfor %}{{ {n.a: 1} }}",
    "a namespace in itself": "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
    "a namespace in itself as JSON": "{% set n = namespace() %}{% set n.n = [n] %}{{ n.n | tojson }}",
    # much memory
    "repetition": "{{ 'a' * 10000000000 }}",
    "repetition turned": "{{ 10000000000 * 'a' }}",
    "list repetition": "{{ [1] * 10000000000 }}",
    "repetition of constants": "{% set x = 'aaaa' * 99999999 * 99999999 %}",
    "power": "{{ 10 ** 9999999999 }}",
    "products": "{% set n = namespace(v=99) %}{% for i in range(60) %}{% set n.v = n.v * n.v %}{% endfor %}{{ n.v }}",
    "doubling": LONG + "{% for i in range(99) %}{% set x.v = x.v ~ x.v %}{% endfor %}",
    "doubling by plus": LONG + "{% for i in range(99) %}{% set x.v = x.v + x.v %}{% endfor %}",
    "doubling by a block": LONG
    + "{% for i in range(99) %}{% set y %}{{ x.v }}{{ x.v }}{% endset %}{% set x.v = y %}{% endfor %}",
    "doubling by a list": "{% set x = namespace(v=[1]) %}{% for i in range(99) %}{% set x.v = x.v + x.v %}{% endfor %}",
    "doubling by a filter block": LONG
    + "{% for i in range(99) %}{% set y %}{% filter upper %}{{ x.v }}{{ x.v }}{% endfilter %}{% endset %}{% set x.v = y %}{% endfor %}",
    "printing": GROWN + "{% for a in range(99999) %}{{ x.v }}{% endfor %}",
    "literals": "{% for a in range(99999) %}" + "b" * 200_000 + "{% endfor %}",
    "literals in a macro": "{% macro m() %}"
    + "b" * 200_000
    + "{% endmacro %}{% for a in range(99999) %}{{ m() }}{% endfor %}",
    "replace": GROWN + "{{ x.v | replace('a', x.v) }}",
    "replace by method": GROWN + "{{ x.v.replace('a', x.v) }}",
    "replace nothing": GROWN + "{{ x.v.replace('', x.v) }}",
    "join": GROWN + "{{ x.v | join(x.v) }}",
    "join by method": GROWN + "{{ x.v.join(x.v) }}",
    "indent": "{{ ('\\n' * 9999) | indent(999999999) }}",
    "indent by text": GROWN + "{{ ('a\\n' * 9999) | indent(x.v) }}",
    "JSON indented": "{{ [[1]] | tojson(indent=999999999) }}",
    "JSON of shared lists": "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a | tojson }}",
    "text of shared texts": GROWN + "{{ ([x.v] * 9999) | string }}",
    "format width": "{{ '%9999999999d' % 1 }}",
    "format width given": "{{ '%*d' % (999999999, 1) }}",
    "format many": "{{ ('%s' * 99999) % ([messages[0].content] * 99999) }}",
    "format method": "{{ '{:9999999999}'.format(1) }}",
    "format method nested": "{{ '{:{w}}'.format(1, w=999999999) }}",
    "format many by method": GROWN + "{{ ('{0}' * 9999).format(x.v) }}",
    "format by map": GROWN + "{{ ('{a}' * 9999).format_map({'a': x.v}) }}",
    "split": GROWN + "{% set y = x.v.split('a') %}" * 40,
    "sum of lists": "{{ ([[1, 2, 3]] * 99999) | sum(start=[]) }}",
    "rounding": "{{ 1.5 | round(999999999) }}",
    # Python's objects, and what is not for templates
    "classes": "{{ ''.__class__.__mro__ }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "frames": "{{ cycler.__init__.__globals__ }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "attribute by format": "{{ '{0.__class__}'.format('') }}",
    "map of attributes": "{{ [''] | map(attribute='__class__') | list }}",
    "padding methods": "{{ 'a'.ljust(999999999) }}",
    "centre": "{{ 'a'.center(999999999) }}",
    "zfill": "{{ '1'.zfill(999999999) }}",
    "tabs": "{{ '\\t'.expandtabs(999999999) }}",
    "translate": "{{ 'a'.translate({97: 'b' * 100}) }}",
    "changing messages": "{% set _ = messages.append(1) %}",
    "including": "{% include '/etc/passwd' %}",
    "importing": "{% import 'os' as os %}",
    "extending": "{% extends 'base' %}",
    "centre filter": "{{ 'a' | center(999999999) }}",
    "a filter that is not there": "{{ 'a' | pprint }}",
    "lipsum": "{{ lipsum(n=999999) }}",
    "markup": "{% autoescape true %}{{ ('a' | escape).center(999999999) }}{% endautoescape %}",
    # what breaks compilers
    "nested brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "nested ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "nested loops beyond Python": "{% for a in [1] %}" * 60 + "x" + "{% endfor %}" * 60,
    "long sum": "{{ " + "1+" * 20000 + "1 }}",
    "a huge number": "{{ " + "9" * 100_000 + " }}",
    "too long": "x" * 300_000,
}


# Compiled and done; and Python's objects, which for a foreign template are nothing, and print as nothing.
HARMLESS = ("nested ifs", "long sum", "globals", "attr filter", "attribute by format", "map of attributes")


def refused(source: str) -> str | None:
    try:
        template = ChatTemplate(source, ("<|eos|>",), roles=FOREIGN)
        template.segments(TALK, tagged=False)
    except (DataError, ConfigError) as e:
        return e.cause
    return None


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_soon(name: str) -> None:
    began = time.process_time()
    cause = refused(ATTACKS[name])
    assert cause is not None or name in HARMLESS
    assert time.process_time() - began < 10
    assert cause is None or len(cause) < 2000


MEMORY = """
import json, resource, sys
from tests.modality.test_sandbox import ATTACKS, refused
refused("{{ messages[0].content }}")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
names = list(ATTACKS)
for name in names[names.index("repetition"):names.index("classes")]:
    refused(ATTACKS[name])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_attacks_on_memory_together_take_little() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 600_000  # kilobytes


def test_special_tokens_of_messages_survive_no_attack() -> None:
    source = "{{ messages[0].content | upper | lower | replace('|', '|') }}"
    template = ChatTemplate(source, ("<|eos|>",), roles=FOREIGN)
    spans = template.segments([{"role": "user", "content": "a<|eos|>b<|EOS|>"}], tagged=False)
    assert all(s.kind == "text" for s in spans)


def test_a_long_conversation_is_no_attack() -> None:
    source = (
        "{% for m in messages %}{{ '<|eos|>' + m['role'] + '\n' + (m['content'] | trim) + '\n' }}{% endfor %}"
    )
    talk = [{"role": "user", "content": "word " * 200}] * 5000
    assert len(ChatTemplate(source, ("<|eos|>",), roles=FOREIGN).segments(talk, tagged=False)) == 10_000


names = st.sampled_from(
    ["messages", "x", "messages[0].content", "m", "1", "'ab'", "[1, 2]", "true", "none", "n.v"]
)
joined = st.tuples(
    names, st.sampled_from(["+", "~", "*", "-", "%", "==", "<", "in", "and", "is not"]), names
).map(" ".join)
filtered = st.tuples(
    names,
    st.sampled_from(
        [
            "upper",
            "trim",
            "length",
            "list",
            "first",
            "last",
            "join",
            "replace('a','b')",
            "string",
            "reverse",
            "default(1)",
            "tojson",
            "sort",
            "unique",
            "map('string')|list",
        ]
    ),
).map("|".join)
cut = st.sampled_from(["messages[1:]", "x[:-1]", "messages[0].content[::2]"])
called = st.tuples(
    names,
    st.sampled_from(["strip()", "split('a')", "items()", "get('role')", "upper()", "replace('a', 'bb')"]),
).map(".".join)
expressions = st.one_of(names, joined, filtered, cut, called)


@st.composite
def templates(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(
        st.sampled_from(
            ["text", "print", "set", "for", "if", "macro", "block"] if depth else ["text", "print", "set"]
        )
    )
    if kind == "text":
        return draw(st.sampled_from(["a", "\n", " b ", "<|x|>"]))
    e = draw(expressions)
    if kind == "print":
        return "{{ " + e + " }}"
    if kind == "set":
        return draw(
            st.sampled_from(
                [
                    "{% set x = " + e + " %}",
                    "{% set n = namespace(v=" + e + ") %}",
                    "{%- set n.v = " + e + " -%}",
                ]
            )
        )
    inside = "".join(draw(st.lists(templates(depth=depth - 1), max_size=3)))
    if kind == "for":
        rule = draw(st.sampled_from(["", " if m"]))
        return "{% for m in " + e + rule + " %}" + inside + "{{ loop.index }}{% else %}-{% endfor %}"
    if kind == "if":
        return "{% if " + e + " %}" + inside + "{% else %}+{% endif %}"
    if kind == "macro":
        return "{% macro f(x) %}" + inside + "{% endmacro %}{{ f(" + e + ") }}"
    return "{% set x %}" + inside + "{% endset %}{{ x }}"


def listed(work: Callable[..., Any]) -> Callable[..., Any]:
    """Where jinja2 gives a generator, we give a list: it can be read twice, and measured."""

    @functools.wraps(work)
    def run(*args: Any, **kwargs: Any) -> Any:
        made = work(*args, **kwargs)
        return list(made) if isinstance(made, Iterator) else made

    return run


def rendered(env: jinja2.Environment, source: str) -> str:
    data = [{"role": "user", "content": "abc Abc"}, {"role": "assistant", "content": "x"}]
    try:
        with budget(data):
            return env.from_string(source).render(messages=data)
    except Exception as e:
        return type(e).__name__


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@settings(deadline=None, max_examples=150)
@given(st.lists(templates(), max_size=4).map("".join))
def test_honest_templates_say_what_plain_jinja_says(source: str) -> None:
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.filters = {name: listed(work) for name, work in plain.filters.items()}
    plain.filters["tojson"] = lambda x: json.dumps(x, ensure_ascii=False)
    ours, theirs = rendered(Sandboxed(undefined=jinja2.Undefined), source), rendered(plain, source)
    assert ours == theirs or "SecurityError" in ours
