"""RoBERTa and XLM-RoBERTa: BERT whose positions begin behind the padding token's row, with a head under other names and always GELU.

Source: transformers `models/roberta/` and `models/xlm_roberta/`, read for names and defaults; Liu et al., 1907.11692.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families.bert import TYPES, trunk_names
from onebase.interop.families.encoder import (
    ABSOLUTE,
    BEHIND_PADDING,
    MASKED,
    MASKED_EPS,
    NO_DECODER,
    POST,
    VOCABULARY,
    Predicts,
    head_names,
    position_lines,
    trunk_lines,
)
from onebase.interop.family import Family
from onebase.interop.fields import Put, Table, number
from onebase.interop.names import rules_of
from onebase.interop.rules import Rules

HEAD = (
    "lm_head.dense",
    "lm_head.layer_norm",
    "lm_head.decoder.weight",
    "lm_head.bias",
    "lm_head.decoder.bias",
)


def rules(cfg: BaseConfig) -> Rules:
    return rules_of(cfg, "text", [*trunk_names("roberta."), *head_names(cfg, *HEAD)])


def _family(model_type: str, name: str) -> Family:
    lines = (
        Put({"model_type": model_type}),
        *NO_DECODER,
        ABSOLUTE,
        *trunk_lines(),
        number("layer_norm_eps", MASKED_EPS, 1e-12),
        VOCABULARY,
        BEHIND_PADDING,
        *position_lines(),
        TYPES,
        Predicts(name, "lm_head.dense.weight"),
    )
    table = Table(lines, POST, MASKED)
    return Family((model_type,), table.read, table.write, rules, prefix="roberta.")


FAMILY = _family("roberta", "Roberta")
XLM = _family("xlm-roberta", "XLMRoberta")
