"""The adapter_config.json of PEFT's LoRA: what it says of ranks and scalings; all that is more than LoRA is refused by name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from onebase.errors import ConfigError
from onebase.formats.peft.folder import PeftFolder
from onebase.formats.reader import Reader

MAX_RANK = 65536
_NAME = re.compile(r"\^?[\w.]+\$?")
# Said elsewhere (which modules, by the tensors), of training alone, or of no weight without a switch that is refused.
_IDLE = (
    "ensure_weight_tying",
    "exclude_modules",
    "fan_in_fan_out",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "qalora_group_size",
    "target_modules",
)


@dataclass(frozen=True)
class Said:
    """What the config says; `ranks` and `alphas` by ends of module names. tokens: ids whose rows are others, likewise ("": the embedding's)."""

    rank: int
    alpha: float
    ranks: Mapping[str, float]
    alphas: Mapping[str, float]
    rslora: bool
    dora: bool
    tokens: Mapping[str, list[int]]


def said(folder: PeftFolder) -> Said:
    """The config, which is refused where it is more than LoRA."""
    r = folder.said
    r.must("bias", "none", "none", "biases are learnt too")
    if r.data.get("init_lora_weights", True) not in (True, False, "gaussian", "eva", "orthogonal"):
        raise r.refuse(
            "init_lora_weights", "true, false, gaussian, eva, orthogonal: others change the base's weights"
        )
    rank, alpha = r.size("r", most=MAX_RANK), r.get("lora_alpha", float)
    rslora, dora = r.get("use_rslora", bool, False), r.get("use_dora", bool, False)
    ranks, alphas = _named(r, "rank_pattern"), _named(r, "alpha_pattern")
    r.has("modules_to_save")
    tokens = _tokens(r)
    folder.done("LoRA", _IDLE)
    return Said(rank, float(alpha), ranks, alphas, rslora, dora, tokens)


def _tokens(r: Reader) -> dict[str, list[int]]:
    """`trainable_token_indices`: ids of the embedding's rows, or a map of such by module."""
    key = "trainable_token_indices"
    if not r.has(key):
        return {}
    given = r.data[key]
    table = given if isinstance(given, dict) else {"": given}
    for ids in table.values():
        whole = isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in ids)
        if not whole or len(set(ids)) < len(ids):
            raise r.refuse(key, "a list of different token ids, or a map of modules to such")
    return {str(k): ids for k, ids in table.items()}


def _named(r: Reader, key: str) -> dict[str, float]:
    """`rank_pattern` or `alpha_pattern`: ends of names. PEFT takes regular expressions too, which may be made to run for ever."""
    table = {}
    for name, value in r.get(key, dict, {}).items():
        plain = name.replace("\\.", ".")
        if not _NAME.fullmatch(plain):
            raise ConfigError(
                f"{r.where}: '{key}' has the pattern {name!r}", "names of modules are accepted, or their ends"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise ConfigError(f"{r.where}: '{key}' has {value!r} at {name!r}", "it is a number above 0")
        table[plain.removesuffix("$")] = value
    return table


def by_name(table: Mapping[str, float], module: str, default: float) -> float:
    """The first entry that `module` ends with, or, where the entry begins with ^, is."""
    for name, value in table.items():
        if module == name.removeprefix("^") or module.endswith("." + name):
            return value
    return default
