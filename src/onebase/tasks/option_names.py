"""Checks names of options without importing the tables of tasks and methods, which takes seconds."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onebase.errors import ConfigError, UserError

OTHER_NAMES = {
    "learning_rate": "lr",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "r": "rank",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "target_modules": "sites",
    "use_dora": "dora",
    "use_rslora": "rslora",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "bs": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "micro_batch",
    "num_virtual_tokens": "virtual",
    "template": "prompt",
    "few_shot": "shots",
}
"""Names of our options in other programs."""
OTHER_TASKS = {
    "classification": "classify",
    "sentiment": "classify",
    "regression": "regress",
    "ner": "tag",
    "token-classification": "tag",
    "sft": "complete",
    "instruct": "complete",
    "completion": "complete",
    "embedding": "embed",
    "retrieval": "embed",
    "qa": "extract",
    "question-answering": "extract",
    "dpo": "prefer",
    "rlhf": "reinforce",
    "grpo": "reinforce",
    "ppo": "reinforce",
    "pretrain": "continue",
    "distill": "distil",
}
OTHER_METHODS = {
    "qlora": "lora",
    "peft": "lora",
    "finetune": "full",
    "fine-tune": "full",
    "sft": "full",
    "linear": "head",
    "linear-probe": "head",
    "probe": "head",
    "prompt-tuning": "soft",
    "prefix-tuning": "prefix",
    "few-shot": "prompt",
}

Names = Mapping[str, str]
"""Options by name, with a description of the accepted values."""

TASK, METHOD = "classify", "lora"
"""The default task and method."""


@dataclass(frozen=True)
class OptionNames:
    """The options of every task and method, of each task and of each method. was: earlier names of common options."""

    common: Names
    tasks: Mapping[str, Names]
    methods: Mapping[str, Names]
    was: Sequence[str] = ()

    def check_pair(self, task: str, method: str) -> None:
        """Raises UserError for an unknown task or method."""
        for kind, name, known in (("task", task, self.tasks), ("method", method, self.methods)):
            if name not in known:
                others = OTHER_TASKS if kind == "task" else OTHER_METHODS
                near = nearest(name.lower(), known, others)
                hint = f"did you mean {near}? " if near else ""
                raise UserError(f"{kind} {name!r} is not known", f"{hint}{kind}s: {', '.join(known)}")

    def check(self, given: Iterable[str], task: str, method: str) -> None:
        """Raises ConfigError for an option that this task and method do not have; it names those that have it, or the nearest option."""
        self.check_pair(task, method)
        own = self.methods[method]
        known = {**self.common, **self.tasks[task], **own}
        for name in given:
            if name in known or name in self.was:
                continue
            if others := [m for m, names in self.methods.items() if name in names]:
                has = (
                    f"options of {method}: {', '.join(own)}" if own else f"{method} has no options of its own"
                )
                raise ConfigError(
                    f"method {method} has no option {name!r}: {_have(others)}",
                    f"remove it, or use another method ({has})",
                )
            if others := [t for t, names in self.tasks.items() if name in names]:
                raise ConfigError(f"task {task} has no option {name!r}: {_have(others)}", "remove it")
            near = nearest(name, known, OTHER_NAMES, 0.4)
            hint = f"did you mean '{near}' ({known[near]})? " if near else ""
            if (other := OTHER_NAMES.get(name)) and other not in known:
                hint = f"its name here is '{other}' ({_have([m for m, own in self.methods.items() if other in own])}); "
            raise ConfigError(
                f"adapt options: unknown key '{name}'", f"{hint}valid keys here: {', '.join(known)}"
            )


def nearest(name: str, known: Iterable[str], others: Mapping[str, str], cutoff: float = 0.6) -> str | None:
    """The known name that is probably meant: by its name in other programs, or by similar spelling; None where none is near."""
    known = list(known)
    if (found := others.get(name)) in known:
        return found
    return next(iter(difflib.get_close_matches(name, known, 1, cutoff)), None)


def _have(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} it"
