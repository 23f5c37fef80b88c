"""Names of options, checked without the tables of tasks and methods, which take seconds to import."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from onebase.errors import ConfigError, UserError

Names = Mapping[str, str]
"""Options by name, with what each accepts in words."""


@dataclass(frozen=True)
class OptionNames:
    """The options of every task and method, of each task and of each method. was: what earlier versions called some of the common ones."""

    common: Names
    tasks: Mapping[str, Names]
    methods: Mapping[str, Names]
    was: Sequence[str] = field(default=())

    def check_pair(self, task: str, method: str) -> None:
        """Raises UserError for a task or method that is not known."""
        for kind, name, known in (("task", task, self.tasks), ("method", method, self.methods)):
            if name not in known:
                raise UserError(f"{kind} {name!r} is not known", f"{kind}s: {', '.join(known)}")

    def check(self, given: Iterable[str], task: str, method: str) -> None:
        """Raises ConfigError for an option that this task and method do not have: it names those that have it, or the nearest."""
        self.check_pair(task, method)
        own = self.methods[method]
        known = {**self.common, **self.tasks[task], **own}
        for name in given:
            if name in known or name in self.was:
                continue
            if others := [m for m, names in self.methods.items() if name in names]:
                has = f"its own: {', '.join(own)}" if own else "it has none of its own"
                raise ConfigError(
                    f"method {method} has no option {name!r}: {_have(others)}",
                    f"leave it out, or give another method ({has})",
                )
            if others := [t for t, names in self.tasks.items() if name in names]:
                raise ConfigError(f"task {task} has no option {name!r}: {_have(others)}", "leave it out")
            near = difflib.get_close_matches(name, known, 1, 0.4)
            hint = f"did you mean '{near[0]}' ({known[near[0]]})? " if near else ""
            raise ConfigError(
                f"adapt options: unknown key '{name}'", f"{hint}valid keys here: {', '.join(known)}"
            )


def _have(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} it"
