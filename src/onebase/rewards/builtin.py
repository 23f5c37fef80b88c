"""Built-in verifiable rewards: 1.0 if a completion is right, else 0.0."""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from onebase.errors import UserError
from onebase.rewards.answer import Reward, RewardInput, RowProblem
from onebase.rewards.numbers import last_number, number_of
from onebase.sandbox.matching import SECONDS, matches
from onebase.sandbox.programs import Sandbox, check_sandbox

FENCED = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


def exact() -> Reward:
    """The completion equals `answer`, except for white space around it."""
    return _each(lambda a: a.completion.strip() == str(a.row["answer"]).strip(), ("answer",))


def number() -> Reward:
    """The last number in the completion equals that of `answer`, in any notation: 1,000 and 1e3 and 1000.0 are equal (`numbers`)."""
    return _each(_same_number, ("answer",), _no_number)


def form(pattern: str) -> Reward:
    """The whole completion matches a Python regular expression (`.` also matches a new line). Raises UserError in `scores` where matching takes
    too long."""
    try:
        re.compile(pattern, re.DOTALL)
    except re.error as e:
        raise UserError(
            f"reward 'format:{pattern}' is not a regular expression: {e}",
            r"give a Python regular expression, for example format:\s*\d+",
        ) from None

    def scores(answers: Sequence[RewardInput]) -> list[float]:
        found = matches(pattern, [a.completion for a in answers])
        if None in found:
            late = answers[found.index(None)]
            shown = late.completion if len(late.completion) <= 80 else f"{late.completion[:77]}..."
            raise UserError(
                f"reward 'format:{pattern}' needs more than {SECONDS:g} s at {late.where}, completion {shown!r}",
                r"remove nested repeats, (\w+\s?)+ as \w+(\s\w+)*, or give a function of your own",
            )
        return [float(bool(x)) for x in found]

    return Reward(scores)


def code() -> Reward:
    """The row's `tests` pass in the sandbox on the completion (or on its first part between ```); both are Python. Raises UserError where
    this machine has no sandbox."""
    sandbox = Sandbox()
    check_sandbox(sandbox)
    reward = _each(lambda a: sandbox.passes(_program(a.completion), a.row["tests"]), ("tests",), _no_tests)
    return replace(reward, seen={"sandbox": str(sandbox.locks)})


def _each(
    right: Callable[[RewardInput], bool],
    columns: tuple[str, ...] = (),
    check: Callable[[Mapping[str, Any]], RowProblem | None] = lambda row: None,
) -> Reward:
    def scores(answers: Sequence[RewardInput]) -> list[float]:
        return [float(right(a)) for a in answers]

    return Reward(scores, columns, check)


def _same_number(a: RewardInput) -> bool:
    found = last_number(a.completion)
    return found is not None and found == number_of(str(a.row["answer"]))


def _no_number(row: Mapping[str, Any]) -> RowProblem | None:
    if isinstance(row["answer"], bool) or number_of(str(row["answer"])) is None:
        return f"'answer' is {row['answer']!r}, expected a number", "give a number, or use reward exact"
    return None


def _no_tests(row: Mapping[str, Any]) -> RowProblem | None:
    if not isinstance(row["tests"], str):
        return f"'tests' is {type(row['tests']).__name__}, expected Python code", "give it as text"
    try:
        compile(row["tests"], "tests", "exec")
    except (SyntaxError, ValueError) as e:
        return f"'tests' is not valid Python: {e}", "correct it: it is run after the completion"
    body = ast.parse(row["tests"]).body
    functions = [n.name for n in body if isinstance(n, ast.FunctionDef)]
    if functions and not any(_does_something(n) for n in body):
        return (
            f"'tests' defines {', '.join(functions)} and calls nothing: every completion would pass",
            f"call it at the end, for example {functions[-1]}(NAME)",
        )
    return None


def _does_something(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return False
    return any(isinstance(n, ast.Call | ast.Assert | ast.Name) for n in ast.walk(statement)) and not (
        isinstance(statement, ast.Assign) and not any(isinstance(n, ast.Call) for n in ast.walk(statement))
    )


def _program(completion: str) -> str:
    fenced = FENCED.search(completion)
    return fenced.group(1) if fenced else completion
