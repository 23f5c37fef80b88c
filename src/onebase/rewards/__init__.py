"""Rewards of completions, by a check, a user's function, or a reward model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onebase.base.folder import LoadedBase
from onebase.errors import UserError
from onebase.rewards import builtin
from onebase.rewards.answer import Reward, RewardInput
from onebase.rewards.function import function
from onebase.rewards.model import model

__all__ = ["RewardInput", "Reward", "checked", "opened"]

CHECKS: dict[str, Callable[[], Reward]] = {
    "exact": builtin.exact,
    "number": builtin.number,
    "code": builtin.code,
}
FORMAT = "format:"


@contextmanager
def opened(spec: str, base: LoadedBase) -> Iterator[Reward]:
    """The reward that `reinforce.reward` names; a reward model is on the base inside the block. Raises UserError."""
    if _is_adapter(spec):
        with model(Path(spec), base) as reward:
            yield reward
    else:
        yield _without_model(spec)


def checked(spec: str) -> Reward:
    """The reward, only for its columns and its check of rows; a reward model has none and is not loaded. Raises UserError."""
    return Reward(lambda answers: []) if _is_adapter(spec) else _without_model(spec)


def _is_adapter(spec: str) -> bool:
    return (Path(spec) / "adapter.json").is_file() or (Path(spec) / "adapter_config.json").is_file()


def _without_model(spec: str) -> Reward:
    if spec in CHECKS:
        return CHECKS[spec]()
    if spec.startswith(FORMAT):
        return builtin.form(spec.removeprefix(FORMAT))
    if ".py:" in spec:
        return function(spec)
    raise UserError(
        f"reward {spec!r} is not known",
        f"give {', '.join(CHECKS)}, format:REGEX, FILE.py:function, or the folder of a reward model",
    )
