"""A reward function of the user's own: `FILE.py:name`, called as name(prompt, completion, row). It is his code, and runs as such."""

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onebase.artifact.files import sha256_bytes
from onebase.errors import UserError
from onebase.rewards.answer import Reward, RewardInput


def function(spec: str) -> Reward:
    """Raises UserError where there is no such file or function, or it cannot be loaded; and in `scores` where it fails or gives no number."""
    file, name = spec.rsplit(":", 1)
    path = Path(file)
    if not path.is_file():
        raise UserError(
            f"reward {spec!r}: there is no file {file}", "give FILE.py:function, FILE.py from where you are"
        )
    call = _loaded(path, name, spec)

    def scores(answers: Sequence[RewardInput]) -> list[float]:
        return [_number(_called(call, spec, a), spec, a) for a in answers]

    return Reward(scores, facts={"file": sha256_bytes(path.read_bytes())})


def _loaded(path: Path, name: str, spec: str) -> Callable[..., Any]:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as e:  # anything may go wrong in a user's file
        raise UserError(f"reward {spec!r}: {path} cannot be loaded: {_said(e)}", "mend the file") from e
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
    except Exception as e:  # anything may go wrong in a user's function; nothing of it is swallowed
        raise UserError(
            f"reward {spec!r} failed at {a.where}, completion {_short(a.completion)}: {_said(e)}",
            "mend the function: it must take every completion that the base may write",
        ) from e


def _number(given: Any, spec: str, a: RewardInput) -> float:
    # numpy and torch have numbers of their own; a text that looks like one is a mistake
    try:
        found = math.nan if isinstance(given, str) or not hasattr(given, "__float__") else float(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # several numbers, or one beyond fp64
        found = math.nan
    if not math.isfinite(found):
        raise UserError(
            f"reward {spec!r} gave {_cut(repr(given))} at {a.where}, completion {_short(a.completion)}",
            "let it return a finite number",
        )
    return found


def _said(e: Exception) -> str:
    return f"{type(e).__name__}: {e}"


def _short(text: str) -> str:
    return repr(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
