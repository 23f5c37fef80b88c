"""RoBERTa and XLM-RoBERTa: BERT whose positions begin after the padding token's row, with other names for the head, and always GELU.

Source: transformers `models/roberta/` and `models/xlm_roberta/`, read for names and defaults; Liu et al., 1907.11692.
"""

from onebase.base.config import BaseConfig
from onebase.formats.families import encoder
from onebase.formats.families.bert import TYPES, trunk_names
from onebase.formats.family import Family
from onebase.formats.fields import Put, Table, number
from onebase.formats.names import Names, table_family

HEAD = (
    "lm_head.dense",
    "lm_head.layer_norm",
    "lm_head.decoder.weight",
    "lm_head.bias",
    "lm_head.decoder.bias",
)


def names(cfg: BaseConfig) -> Names:
    return [*trunk_names("roberta."), *encoder.head_names(cfg, *HEAD)]


def _family(model_type: str, name: str) -> Family:
    lines = (
        Put({"model_type": model_type}),
        *encoder.NO_DECODER,
        encoder.ABSOLUTE,
        *encoder.trunk_lines(),
        number("layer_norm_eps", encoder.MASKED_EPS, 1e-12),
        encoder.VOCABULARY,
        encoder.BEHIND_PADDING,
        *encoder.position_lines(),
        TYPES,
        encoder.Predicts(name, "lm_head.dense.weight"),
    )
    return table_family(model_type, Table(lines, encoder.POST, encoder.MASKED), names, prefix="roberta.")


FAMILY = _family("roberta", "Roberta")
XLM = _family("xlm-roberta", "XLMRoberta")
