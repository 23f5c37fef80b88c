"""Heads of classifiers and reward models in PEFT adapters: modules that PEFT saves whole with any method, by the layouts of the families.

PEFT saves a head's weights but not its meaning. Labels and pooling are those of the base's own head, or transformers' defaults for a base
without one (LABEL_0 ...). Source: peft `peft_model.py` (PeftModelForSequenceClassification), read for names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from onebase.base.head import Head, HeadConfig, tag_parts
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.families.heads import KINDS, LAYOUTS, Kind, Layout, as_stored
from onebase.formats.peft.folder import PeftFolder, Target
from onebase.formats.reader import ConfigReader

TASK_TYPES: dict[str, Kind] = {"SEQ_CLS": "sequence", "TOKEN_CLS": "tokens", "QUESTION_ANS": "answers"}
"""By PEFT's `task_type`."""


@dataclass(frozen=True)
class PeftHead:
    """A head: its task, its config, its tensors with our names, PEFT's names of them, and the base with the names of a class with such a head."""

    task: str
    config: HeadConfig
    tensors: dict[str, Tensor]
    names: frozenset[str]
    target: Target


def read_head(folder: PeftFolder, target: Target) -> PeftHead | None:
    """The head in an adapter's folder; None if it has none. Raises ArtifactError for an incomplete one, ConfigError for a base whose family has
    no known head layout."""
    kind = TASK_TYPES.get(folder.said.get("task_type", str, ""))
    if kind is None or not folder.saved:
        return None
    layout = _layout(target, kind)
    at = [p for p in (layout.out, layout.dense, layout.norm) if p is not None]
    saved = {n: t for n, t in folder.saved.items() if n.rsplit(".", 1)[0] in at}
    if f"{layout.out}.weight" not in saved:
        return None
    if (out := saved[f"{layout.out}.weight"]).ndim != 2 or not len(out):
        raise ArtifactError(
            f"{folder.where}: {layout.out!r} is {list(out.shape)}, expected a matrix", "take an intact copy"
        )
    outputs = len(out)
    task, cfg, known = _own_or_default(target, kind, layout, outputs)
    names = layout.names(cfg.layer) | {"head.bias": f"{layout.out}.bias"}
    tensors = dict(known)
    for ours, theirs in names.items():
        if theirs in saved:
            tensors[ours] = saved[theirs].float().clone()
    tensors.setdefault("head.bias", torch.zeros(outputs))
    if lacking := sorted(theirs for ours, theirs in names.items() if ours not in tensors):
        raise ArtifactError(
            f"{folder.where}: its head needs {lacking[0]!r}, which neither the adapter nor the base has",
            "open the base from the folder of the classifier that the adapter was made on",
        )
    try:
        made = Head.of(cfg, tensors).tensors
    except ConfigError as e:
        raise ArtifactError(f"{folder.where}: {e.cause}", "give an adapter of this base") from None
    return PeftHead(task, cfg, made, frozenset(saved), _within(target, layout))


def write_head(
    cfg: HeadConfig, tensors: Mapping[str, Tensor], target: Target
) -> tuple[dict[str, Any], dict[str, Tensor], Target]:
    """The keys of adapter_config.json for a head, its tensors by PEFT's names, and the base with the names of a class with such a head. Raises
    ConfigError for a head that transformers' class cannot represent."""
    kind = KINDS.get(cfg.gives, "sequence")
    layout = _layout(target, kind)
    wanted = _fresh(kind, layout, cfg.outputs)[1]
    own = target.head.config if target.head is not None else None
    pooling = layout.pooling or (own.pooling if own is not None else None)
    for name, here, there in (
        ("pooling", cfg.pooling, pooling if kind == "sequence" else cfg.pooling),
        ("layer", cfg.layer, own.layer if own is not None else wanted.layer),
        ("scale", (cfg.mean, cfg.scale), (0.0, 1.0)),
    ):
        if here != there:
            raise ConfigError(
                f"PEFT cannot represent a head whose {name} is {here!r} (there it is {there!r})",
                "export the merged base, and keep the head beside it",
            )
    names = layout.names(cfg.layer)
    if "head.bias" not in names and bool(tensors["head.bias"].any()):
        raise ConfigError(
            f"PEFT cannot represent this head's bias: {layout.out!r} has none on this base",
            "train it with -o head_bias=false, or export the merged base, and keep the head beside it",
        )
    found = {theirs: tensors[ours] for ours, theirs in names.items()}
    modules = sorted({n.removeprefix(target.family().prefix).split(".")[0] for n in found})
    keys = {"task_type": next(t for t, k in TASK_TYPES.items() if k == kind), "modules_to_save": modules}
    return keys, found, _within(target, layout)


def _within(target: Target, layout: Layout) -> Target:
    return replace(target, family=lambda: as_stored(target.family(), layout), headed=True)


def _layout(target: Target, kind: Kind) -> Layout:
    types = target.family().model_types
    found = next((LAYOUTS[t][kind] for t in types if kind in LAYOUTS.get(t, {})), None)
    if found is None:
        raise ConfigError(
            f"heads on bases of the {types[0]} layout are not supported",
            "use an adapter without a head",
        )
    return found


def _own_or_default(
    target: Target, kind: Kind, layout: Layout, outputs: int
) -> tuple[str, HeadConfig, Mapping[str, Tensor]]:
    """Task, config and tensors of the base's own head, if it has one of this kind and size; else transformers' defaults."""
    own = target.head
    if own is not None and own.config.outputs == outputs and KINDS.get(own.config.gives, "sequence") == kind:
        return own.task, own.config, own.tensors
    return (*_fresh(kind, layout, outputs), {})


def _fresh(kind: Kind, layout: Layout, outputs: int) -> tuple[str, HeadConfig]:
    names = tuple(f"LABEL_{i}" for i in range(outputs))
    layer = None if layout.dense is None else layout.layer(ConfigReader({}, "the head of a class"))
    if kind == "tokens":
        labels = tuple(dict.fromkeys(tag_parts(n)[1] for n in names))
        return "tag", HeadConfig(labels=labels, gives="spans", tags=names, layer=layer)
    if kind == "answers":
        return "extract", HeadConfig(gives="answer", layer=layer)
    pooling = layout.pooling or "cls"
    if outputs == 1:  # as a base with such a head is opened: a decoder's is a reward
        return ("reward" if pooling == "last" else "regress"), HeadConfig(
            gives="value", pooling=pooling, layer=layer
        )
    return "classify", HeadConfig(labels=names, pooling=pooling, layer=layer)
