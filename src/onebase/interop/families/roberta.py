"""RoBERTa and XLM-RoBERTa: BERT whose positions begin behind the padding token's row, with a head under other names.

Source: transformers `models/roberta/` and `models/xlm_roberta/`, read for names and defaults; Liu et al., 1907.11692.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families import bert
from onebase.interop.families.encoder import behind_padding, head_rules
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Rules


def read(r: Reader) -> BaseConfig:
    # A text's first position is pad_token_id + 1 (fairseq numbers the padding too), its head's activation is always GELU.
    return bert.read(r, behind_padding(r, 1), "lm_head.dense.weight", "gelu")


def tree(cfg: BaseConfig, model_type: str, stem: str) -> Tree:
    """BERT's keys and the padding token's number."""
    return bert.tree(cfg, model_type, stem) | {"pad_token_id": cfg.text.first_position - 1}


def write(cfg: BaseConfig) -> Tree:
    return tree(cfg, "roberta", "Roberta")


def write_xlm(cfg: BaseConfig) -> Tree:
    return tree(cfg, "xlm-roberta", "XLMRoberta")


def rules(cfg: BaseConfig) -> Rules:
    head = head_rules(
        cfg.text,
        "lm_head.dense",
        "lm_head.layer_norm",
        "lm_head.decoder.weight",
        "lm_head.bias",
        "lm_head.decoder.bias",
    )
    return [*bert.trunk_rules(cfg, "roberta."), *head]


FAMILY = Family(("roberta",), read, write, rules, prefix="roberta.")
XLM = Family(("xlm-roberta",), read, write_xlm, rules, prefix="roberta.")
