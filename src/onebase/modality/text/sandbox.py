"""Jinja for untrusted templates: sandboxed, and with a budget, so that none runs forever or fills the memory.

The sandbox of jinja2 protects Python's objects from a template, but sets no limit. Here every loop body, macro and call costs
a step, and every value that an operation reads or produces costs its size. A template that exceeds its budget is stopped.
For operations with large results from small inputs (repetition, powers, format widths) the size is computed before they run.
Only the filters and methods on the lists below are available.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes, pass_context
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from onebase.modality.text.budget import ELEMENT, VIEW_TYPES, TooMuch, charge, weigh
from onebase.modality.text.filters import check_number, filters_of, longest, tests_of
from onebase.modality.text.guard import Guard, guarded

SOURCE = 1 << 18
"""Maximum characters of a template."""
_METHODS = (
    "capitalize count endswith find format get index isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle "
    "isupper items join keys lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip "
    "split splitlines startswith strip swapcase title upper values"
)
METHODS = frozenset(_METHODS.split())


class _Charges(Extension):
    """Functions that the rewritten template calls. A template cannot name these, so it cannot replace them."""

    def tick(self, size: int) -> bool:
        charge(size, steps=1)
        return True

    def joined(self, *parts: Any) -> str:
        weigh(*parts)
        return "".join(map(self._guard.written, parts))

    def made(self, value: Any) -> Any:
        weigh(value)
        return value

    def seen(self, value: Any) -> Any:
        weigh(value)
        return self._guard.plain(value)

    @property
    def _guard(self) -> Guard:
        env: Any = self.environment
        guard: Guard = env.guard
        return guard

    def cut(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        weigh(value)
        return value[slice(start, stop, step)]


def _call(line: int, name: str, *args: nodes.Expr) -> nodes.Call:
    call = nodes.Call(nodes.ExtensionAttribute(_Charges.identifier, name), list(args), [], None, None)
    return call.set_lineno(line)  # type: ignore[return-value]


def _literal(body: Sequence[nodes.Node]) -> int:
    """Number of literal characters in these statements."""
    kinds = (nodes.TemplateData, nodes.Const)
    literals = [n for node in body for n in (node, *node.find_all(kinds)) if isinstance(n, kinds)]
    return sum(len(str(n.data if isinstance(n, nodes.TemplateData) else n.value)) for n in literals)


def _rewrite(node: nodes.Node) -> nodes.Node:
    """The same template with charges inserted."""
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, name, [_rewrite(v) if isinstance(v, nodes.Node) else v for v in value])
        elif isinstance(value, nodes.Node):
            setattr(node, name, _rewrite(value))
    line = node.lineno
    if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)):
        tick = _call(line, "tick", nodes.Const(1 + _literal(node.body)))
        node.body.insert(0, nodes.ExprStmt(tick).set_lineno(line))
        if isinstance(node, nodes.For) and node.test is not None:
            node.test = nodes.And(_call(line, "tick", nodes.Const(1)), node.test)
    elif isinstance(node, nodes.Concat):
        return _call(line, "joined", *node.nodes)
    elif isinstance(node, (nodes.List, nodes.Tuple, nodes.Dict)) and getattr(node, "ctx", "load") == "load":
        return _call(line, "made", node)
    elif isinstance(node, nodes.Compare):
        node.expr = _call(line, "seen", node.expr)
        for operand in node.ops:
            operand.expr = _call(line, "seen", operand.expr)
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        parts = (node.arg.start, node.arg.stop, node.arg.step)
        return _call(line, "cut", node.node, *(p or nodes.Const(None) for p in parts))
    return node


class Sandboxed(ImmutableSandboxedEnvironment):
    """The environment of chat templates. guard: replaces special tokens in messages."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(
        self, *extensions: Any, undefined: type[jinja2.Undefined], guard: Guard | None = None
    ) -> None:
        self.guard = guard or Guard(())
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=undefined,
            optimized=False,  # constants are folded at run time, under the budget
            finalize=_printed,
            extensions=[*extensions, "jinja2.ext.loopcontrols", "jinja2.ext.do", _Charges],
        )
        self.filters = filters_of(self.filters, self.guard)
        tests: Any = tests_of(dict[str, Any](self.tests), self.guard)
        self.tests = tests
        self.globals.pop("lipsum")

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > SOURCE:
            raise jinja2.TemplateSyntaxError(f"{len(source):,} characters, the limit is {SOURCE:,}", 1)
        tree = _rewrite(super()._parse(source, name, filename))
        return tree.set_environment(self)  # type: ignore[return-value]

    def getitem(self, obj: Any, argument: Any) -> Any:
        return super().getitem(obj, self.guard.plain(argument))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        charge(1)
        if isinstance(left, int) and isinstance(right, int):
            check_number(operator, left, right)
        elif operator == "*":
            times, what = (left, right) if isinstance(left, int) else (right, left)
            charge(
                weigh(what) * max(0, times) if isinstance(times, int) and isinstance(what, VIEW_TYPES) else 1
            )
        elif operator == "%" and isinstance(left, (str, bytes)):
            charge(_directives(left) * weigh(right) + weigh(left))
        else:
            weigh(left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, _Charges):
            return __obj(*args)
        charge(1, steps=1)
        if isinstance(owner, VIEW_TYPES):
            _method(str(getattr(__obj, "__name__", "")), owner, args, kwargs)
        else:
            weigh(*args, *kwargs.values())
        if isinstance(owner, str) and guarded(owner, *args, *kwargs.values()):
            given = {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars")}  # jinja's own
            result = __self.guard.call(str(__obj.__name__), owner, args, given)
        else:
            args = __self.guard.plain(args) if isinstance(owner, (list, tuple, dict)) else args
            result = super().call(__context, __obj, *args, **kwargs)
        weigh(result)
        return result

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def run(*args: Any, **kwargs: Any) -> str:
            _method("format", value.__self__, args, kwargs)
            assert wrapped is not None
            return wrapped(*args, **kwargs)

        return run


@pass_context
def _printed(context: Any, value: Any) -> Any:
    weigh(value)
    return context.environment.guard.written(value)


_DIRECTIVE = re.compile(r"%(\(\w+\))?[-+ #0]?\d{0,3}(\.\d{1,3})?[a-zA-Z%]")


def _directives(text: str | bytes) -> int:
    """The cost of the directives of a `%` format. Widths may have three digits; a width given as an argument is refused."""
    shown = text if isinstance(text, str) else text.decode("latin-1")
    if "%" in _DIRECTIVE.sub("", shown):
        raise TooMuch("the template has a % format that is not supported (a width over 3 digits, or `*`)")
    return 1024 * shown.count("%")


def _method(name: str, owner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Charge the largest possible result of a string, list or dict method before it runs. Raises SecurityError for one not in METHODS."""
    if name not in METHODS:
        raise jinja2.exceptions.SecurityError(f"the method {name!r} is not available to templates")
    owner_size, args_size = weigh(owner), weigh(*args, *kwargs.values())
    if name == "replace":
        charge((len(owner) + 1) * longest(args[1:]))
    elif name == "join":
        charge(args_size * (len(owner) + 1))
    elif name == "format":
        if re.search(r"\{[^{}]*[:!]", owner):
            raise TooMuch("the template has a format with a width or a conversion")
        charge(owner.count("{") * args_size)
    elif name in ("split", "rsplit", "splitlines"):
        charge(ELEMENT * owner_size)
