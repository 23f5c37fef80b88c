"""A user's reward function: `FILE.py:name`, called as name(prompt, completion, row). It is the user's code and is not sandboxed."""

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onebase.artifact.files import sha256_bytes
from onebase.errors import UserError
from onebase.rewards.answer import Reward, RewardInput


def function(spec: str) -> Reward:
    """The reward by a user's function. Raises UserError for a file or function that does not exist or cannot be loaded; in `scores` where the
    function fails or returns no number."""
    file, name = spec.rsplit(":", 1)
    path = Path(file)
    if not path.is_file():
        raise UserError(
            f"reward {spec!r}: file {file} does not exist",
            "give FILE.py:function, with FILE.py relative to this folder",
        )
    call = _loaded(path, name, spec)

    def scores(answers: Sequence[RewardInput]) -> list[float]:
        return [_number(_called(call, spec, a), spec, a) for a in answers]

    return Reward(scores, facts={"file": sha256_bytes(path.read_bytes())})


def _loaded(path: Path, name: str, spec: str) -> Callable[..., Any]:
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as e:  # a user's file may raise anything
        raise UserError(f"reward {spec!r}: {path} cannot be loaded: {_message(e)}", "correct the file") from e
    call = getattr(module, name, None)
    if not callable(call):
        there = ", ".join(k for k, v in vars(module).items() if callable(v) and not k.startswith("_"))
        raise UserError(
            f"reward {spec!r}: {path} has no function {name!r}", f"it has: {there or 'no function'}"
        )
    return call


def _called(call: Callable[..., Any], spec: str, a: RewardInput) -> Any:
    try:
        return call(a.prompt, a.completion, dict(a.row))
    except Exception as e:  # a user's function may raise anything; the error is reported whole
        raise UserError(
            f"reward {spec!r} failed at {a.where}, completion {_short(a.completion)}: {_message(e)}",
            "correct the function: it must accept every completion that the base may generate",
        ) from e


def _number(given: Any, spec: str, a: RewardInput) -> float:
    # Numbers of numpy and torch are accepted; text that looks like a number is a mistake.
    try:
        value = math.nan if isinstance(given, str) or not hasattr(given, "__float__") else float(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # several numbers, or one beyond fp64
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"reward {spec!r} returned {_cut(repr(given))} at {a.where}, completion {_short(a.completion)}",
            "return a finite number",
        )
    return value


def _message(e: Exception) -> str:
    return f"{type(e).__name__}: {e}"


def _short(text: str) -> str:
    return repr(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
