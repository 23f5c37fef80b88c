"""Writes heads in the transformers format: config keys and tensors, by the table of `heads`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onebase.base.head import HeadConfig, OwnHead, span_tags
from onebase.errors import ConfigError
from onebase.formats.families.heads import (
    ACTIVATIONS,
    ACTS,
    HEAD_KINDS,
    KINDS,
    LAYOUTS,
    POOLINGS,
    FoundHead,
    Layout,
    read_config,
)
from onebase.formats.families.heads_linear import as_layout
from onebase.formats.family import Tree
from onebase.formats.hf.sentence import Pairs
from onebase.formats.reader import ConfigReader
from onebase.modality.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class WrittenHead:
    """The config of a model with a head, the head's tensors by foreign name, and the prefix of the trunk's names (None: the family's)."""

    config: Tree
    tensors: dict[str, Tensor]
    trunk: str | None

    def trunk_names(self, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """The trunk's tensors (those whose names begin with `prefix`), with their names in this class."""
        begin = prefix if self.trunk is None else self.trunk
        return {begin + n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def written_head(model_type: str, head: OwnHead, config: Tree) -> WrittenHead:
    """The trunk's `config` with the keys of a head, and its tensors by foreign name. Raises ConfigError if the family's layout cannot express it,
    which is checked by reading it back."""
    refuse_counts(head.config)
    kind = KINDS.get(head.config.gives, "sequence")
    layout = LAYOUTS.get(model_type, {}).get(kind)
    if layout is None:
        raise ConfigError(
            f"a head for {head.task} on a base of the {model_type} layout: transformers has no such class",
            "export the base without the head",
        )
    architecture = _stem(config) + next(s for s, k in HEAD_KINDS.items() if k == kind)
    if kind == "sequence":
        _refuse_pooling(architecture, layout, head)
    head = as_layout(head, layout, config)
    cfg = head.config
    names = (
        cfg.tags
        or (span_tags(cfg.labels) if cfg.gives == "spans" else cfg.labels)
        or tuple(f"LABEL_{i}" for i in range(cfg.outputs))
    )
    tree = config | {
        "architectures": [architecture],
        "id2label": {str(i): n for i, n in enumerate(names)},
        "label2id": {n: i for i, n in enumerate(names)},
        "problem_type": _PROBLEMS.get((cfg.gives, head.task)),
    }
    if layout.dense == "head.dense" and cfg.layer is not None:
        act = next((name for name, ours in ACTS.items() if ours == cfg.layer.activation), "tanh")
        tree |= {"classifier_activation": act, "classifier_bias": cfg.layer.bias}
        tree |= {"classifier_pooling": cfg.pooling} if kind == "sequence" else {}
    if cfg.pad is not None:
        tree["pad_token_id"] = cfg.pad
    crossing = next(n for n, sigmoid in ACTIVATIONS.items() if sigmoid == cfg.sigmoid)
    if head.task == "rerank":
        tree["sentence_transformers"] = {"activation_fn": crossing}
    tensors = dict(head.tensors)
    _prove(FoundHead(architecture, kind, layout, frozenset()), head, tree)
    if not layout.bias and (head.task == "reward" or torch.count_nonzero(tensors["head.bias"]) == 0):
        # Only differences of rewards have a meaning.
        del tensors["head.bias"]
    theirs = layout.names(cfg.layer)
    if "head.bias" in tensors and "head.bias" not in theirs:
        raise ConfigError(
            f"{architecture} cannot express a head with a bias: 'score' has none there",
            "train it with -o pooling=last -o head_bias=false, or export the base without the head",
        )
    return WrittenHead(tree, {theirs[name]: t for name, t in tensors.items()}, layout.trunk)


_PROBLEMS = {
    ("one", "classify"): "single_label_classification",
    ("many", "classify"): "multi_label_classification",
    ("value", "regress"): "regression",
}


def refuse_counts(cfg: HeadConfig) -> None:
    """Raises ConfigError for a head that reads token counts, which no foreign class does."""
    if cfg.counts:
        raise ConfigError(
            "no class of transformers has a head that reads token counts",
            "train it with -o counts=never, or export the base without the head",
        )


def _refuse_pooling(architecture: str, layout: Layout, head: OwnHead) -> None:
    supported = tuple(POOLINGS) if layout.pooling is None else (layout.pooling,)
    if (pooling := head.config.pooling) not in supported:
        more = "" if layout.bias or head.task == "reward" else " -o head_bias=false"
        raise ConfigError(
            f"{architecture} cannot express a head with pooling {pooling!r} (it has {' or '.join(map(repr, supported))})",
            f"train it with -o pooling={supported[-1]}{more}, or export the base without the head",
        )


def _prove(found: FoundHead, head: OwnHead, tree: Tree) -> None:
    """Raises ConfigError if the keys would be read as another head."""
    cfg = head.config
    r = ConfigReader(tree, "the exported config")
    try:
        task, again = read_config(r, found, cfg.outputs, Pairs(None, cfg.limit, cfg.typed))
    except ConfigError as e:
        raise ConfigError(f"{found.architecture} cannot express this head: {e.cause}", e.remedy) from None
    wanted = replace(cfg, tags=cfg.tags or span_tags(cfg.labels)) if cfg.gives == "spans" else cfg
    if found.kind != "sequence":
        wanted = replace(wanted, pooling=again.pooling)
    for name in ("pooling", "layer", "gives", "labels", "tags", "mean", "scale", "sigmoid", "pad"):
        if getattr(again, name) != getattr(wanted, name):
            raise ConfigError(
                f"{found.architecture} cannot express a head whose {name} is {getattr(wanted, name)!r} (there it is {getattr(again, name)!r})",
                "export the base without the head, or train such a head (docs/bases.md)",
            )
    if task != head.task:
        raise ConfigError(
            f"{found.architecture} would be read as a head for {task}", "export the base without the head"
        )


def padding(tokenizer: Tokenizer, head: OwnHead) -> Tree:
    """`pad_token_id` of a config whose head reads the last state that is not padding: it must not be a stop token."""
    if head.config.pooling != "last" or head.config.gives == "spans":
        return {}
    pad = tokenizer.pad if tokenizer.pad not in tokenizer.stop_ids else None
    return {"pad_token_id": pad if head.config.pad is None else head.config.pad}


def pairs_tree(head: OwnHead) -> Tree:
    """The keys of tokenizer_config.json for the text pairs of a head."""
    tree: Tree = {} if head.config.typed else {"model_input_names": ["input_ids", "attention_mask"]}
    return tree if head.config.limit is None else tree | {"model_max_length": head.config.limit}


def _stem(config: Tree) -> str:
    """The prefix of a family's class names: `Bert` of `BertModel`."""
    if config["model_type"] == "gemma3_text":
        return "Gemma3Text"
    name = str(config["architectures"][0])
    for suffix in ("ForMaskedLM", "ForCausalLM", "LMHeadModel", "Model"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name
