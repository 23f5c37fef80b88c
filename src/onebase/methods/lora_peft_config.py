"""Reads the adapter_config.json of PEFT's LoRA: ranks and scalings; settings beyond LoRA are refused by name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from onebase.errors import ConfigError
from onebase.formats.peft.folder import PeftFolder
from onebase.formats.reader import ConfigReader

MAX_RANK = 65536
_NAME = re.compile(r"\^?[\w.]+\$?")
# Known from elsewhere (the tensors show which modules), for training only, or without effect unless a refused switch is set.
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
class PeftSettings:
    """The config's settings; `ranks` and `alphas` by suffixes of module names. tokens: ids with rows of their own, likewise ("": the embedding's)."""

    rank: int
    alpha: float
    ranks: Mapping[str, float]
    alphas: Mapping[str, float]
    rslora: bool
    dora: bool
    tokens: Mapping[str, list[int]]


def settings(folder: PeftFolder) -> PeftSettings:
    """The settings of the config. Raises ConfigError for those beyond LoRA."""
    r = folder.said
    r.must("bias", "none", "none", "biases are trained too")
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
    return PeftSettings(rank, float(alpha), ranks, alphas, rslora, dora, tokens)


def _tokens(r: ConfigReader) -> dict[str, list[int]]:
    """`trainable_token_indices`: ids of the embedding's rows, or a map from modules to ids."""
    key = "trainable_token_indices"
    if not r.has(key):
        return {}
    given = r.data[key]
    table = given if isinstance(given, dict) else {"": given}
    for ids in table.values():
        whole = isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in ids)
        if not whole or len(set(ids)) < len(ids):
            raise r.refuse(key, "a list of different token ids, or a map from modules to such lists")
    return {str(k): ids for k, ids in table.items()}


def _named(r: ConfigReader, key: str) -> dict[str, float]:
    """`rank_pattern` or `alpha_pattern`: suffixes of names. PEFT also accepts regular expressions, which can be made to run forever."""
    table = {}
    for name, value in r.get(key, dict, {}).items():
        plain = name.replace("\\.", ".")
        if not _NAME.fullmatch(plain):
            raise ConfigError(
                f"{r.where}: '{key}' has the pattern {name!r}",
                "accepted: names of modules, or their suffixes",
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise ConfigError(f"{r.where}: '{key}' has {value!r} at {name!r}", "accepted: a number above 0")
        table[plain.removesuffix("$")] = value
    return table


def by_name(table: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first entry that `module` ends with, or equals where the entry begins with ^."""
    for name, value in table.items():
        if module == name.removeprefix("^") or module.endswith("." + name):
            return value
    return default
