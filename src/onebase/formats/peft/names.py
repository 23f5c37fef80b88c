"""Maps PEFT's module names to the projections of a base: the module names in all versions of transformers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.base.model import BaseModel
from onebase.formats.family import Family
from onebase.formats.rules import Rule, Step, Tie, Transpose
from onebase.model.proj import Proj


@dataclass(frozen=True)
class PeftModule:
    """One module of theirs: our projections in it, in order, and the steps that rearrange a weight's rows."""

    parts: tuple[tuple[Proj, str], ...]
    steps: tuple[Step, ...]
    turned: bool

    def there(self, b: Tensor) -> list[Tensor]:
        xs = [b]
        for step in self.steps:
            xs = step.there(xs)
        return xs

    def back(self, bs: list[Tensor]) -> Tensor:
        for step in reversed(self.steps):
            bs = step.back(bs)
        (b,) = bs
        return b


def modules(model: BaseModel, family: Family, headed: bool = False) -> Iterator[tuple[str, PeftModule]]:
    """Modules with projections of a trunk, by their names in memory in transformers 5. headed: the trunk is inside a class with a head."""
    for file, module in _in_files(model, family):
        yield from _now(file, module, headed or _headed(model.cfg), family)


def by_any_name(model: BaseModel, family: Family) -> dict[str, PeftModule]:
    """The same modules by all names that versions of transformers used: in memory and in files, with and without the class with a head."""
    out: dict[str, PeftModule] = {}
    prefix = family.prefix or "model."
    for file, module in _in_files(model, family):
        named = [(file, module), *_now(file, module, _headed(model.cfg), family)]
        named += [
            (a + file.removeprefix(b), module) for a, b in family.checkpoint_prefixes if file.startswith(b)
        ]
        for name, one in named:
            bare = name.removeprefix(prefix)
            for alias in (name, bare, prefix + bare):
                known = out.setdefault(alias, one)
                assert known is one, f"two modules are named {alias}"
    return out


def ends(model: BaseModel, family: Family, headed: bool = False) -> dict[str, str]:
    """The modules of `embedding` and `lm_head` by their names in memory; a tied one has a name too."""
    headed = headed or _headed(model.cfg)
    return {end: _name_now(file, headed, family) for file, end in _end_files(model, family).items()}


def ends_by_any_name(model: BaseModel, family: Family) -> dict[str, str]:
    """`embedding` or `lm_head` by all names that versions of transformers used for its module."""
    out: dict[str, str] = {}
    prefix = family.prefix or "model."
    for file, end in _end_files(model, family).items():
        names = [file, _name_now(file, _headed(model.cfg), family)]
        names += [a + file.removeprefix(b) for a, b in family.checkpoint_prefixes if file.startswith(b)]
        for name in names:
            bare = name.removeprefix(prefix)
            out |= dict.fromkeys((name, bare, prefix + bare), end)
    return out


def _end_files(model: BaseModel, family: Family) -> dict[str, str]:
    """`embedding` or `lm_head` by the module name in a checkpoint's file."""
    stem, head = "codecs.text.stem.weight", "codecs.text.head.weight"
    out: dict[str, str] = {}
    for rule in family.rules(model.cfg) if "text" in model.cfg.codecs else ():
        if isinstance(rule, Tie) and rule.ours == stem and rule.theirs.endswith(".weight"):
            out.setdefault(rule.theirs.removesuffix(".weight"), "lm_head")
        elif isinstance(rule, Rule) and rule.ours in ((stem,), (head,)) and not rule.steps:
            out[rule.theirs[0].removesuffix(".weight")] = "embedding" if rule.ours == (stem,) else "lm_head"
    return out


def _in_files(model: BaseModel, family: Family) -> Iterator[tuple[str, PeftModule]]:
    """Modules by their names in a checkpoint's file."""
    # Pooling projections (SigLIP's head) are one torch module there, and no adapter acts on them here.
    projs = {
        f"{name}.weight": m
        for name, m in model.named_modules()
        if isinstance(m, Proj) and name.startswith("trunks.")
    }
    for rule in family.rules(model.cfg):
        if isinstance(rule, Rule) and len(rule.theirs) == 1 and all(n in projs for n in rule.ours):
            # B's rows are the weight's rows, even if the weight is transposed in their file.
            steps = tuple(s for s in rule.steps if not isinstance(s, Transpose))
            parts = tuple((projs[n], n) for n in rule.ours)
            yield (
                rule.theirs[0].removesuffix(".weight"),
                PeftModule(parts, steps, len(steps) < len(rule.steps)),
            )


def _now(file: str, module: PeftModule, headed: bool, family: Family) -> Iterator[tuple[str, PeftModule]]:
    """A module by its name in memory; several modules if they are one fused matrix in the file."""
    name = _name_now(file, headed, family)
    before, _, last = name.rpartition(".")
    words = last.split("|")
    if len(words) == 1:
        yield name, module
        return
    for word, part in zip(words, module.parts, strict=True):
        yield f"{before}.{word}", PeftModule((part,), (), module.turned)


def _name_now(file: str, headed: bool, family: Family) -> str:
    """The name in memory of a module, from its name in the file."""
    for pattern, new in family.memory:
        file = re.sub(pattern, new, file)
    return file if headed else file.removeprefix(family.prefix)


def _headed(cfg: BaseConfig) -> bool:
    """Does its transformers class have a head and the trunk as a submodule?"""
    has = ("text" in cfg.codecs and cfg.text.head) or ("image" in cfg.codecs and bool(cfg.image.classes))
    return bool(cfg.links) or has


def decodes(cfg: BaseConfig) -> bool:
    """Is it a text-only decoder?"""
    return set(cfg.trunks) == {"text"} and cfg.trunks["text"].direction == "causal" and cfg.text.head


def task(cfg: BaseConfig) -> str | None:
    """PEFT's task type of the model; None for its plain class, which does not expect input ids (Whisper reads audio first)."""
    return "CAUSAL_LM" if decodes(cfg) or any(link.how == "embed" for link in cfg.links) else None
