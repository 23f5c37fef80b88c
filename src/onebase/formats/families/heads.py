"""Reads heads of published models: their tensors and their meaning, by one two-way table.

An architecture is a trunk and a kind of head (`BertForSequenceClassification`). A `Layout` has the names of a family's head tensors; everything
else (labels, problem type, activation of a cross-encoder's score) is in the config. Source: transformers `modeling_layers.py` and the
`modeling_*.py` of each family, sentence-transformers `cross_encoder/model.py`, read for names and defaults.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.base.head import OUTSIDE, Head, HeadConfig, LayerConfig, OwnHead, Pooling, tag_parts
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.families.encoder import PLAIN
from onebase.formats.family import Family
from onebase.formats.hf.sentence import Pairs, read_pairs
from onebase.formats.reader import ConfigReader
from onebase.formats.weight_loading import WeightSource
from onebase.model.config import Activation, NormConfig

Kind = Literal["sequence", "tokens", "answers"]
HEAD_KINDS: dict[str, Kind] = {
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "answers",
}
KINDS: dict[str, Kind] = {"spans": "tokens", "answer": "answers"}
"""By the output of a head; `sequence` for the others."""
UNREAD = "ForMultipleChoice"
"""An unsupported head: the trunk opens without it."""
PLACES = ("classifier.", "pre_classifier.", "qa_outputs.", "score.", "head.")
"""Prefixes of head tensors."""
ACTIVATIONS = {"torch.nn.modules.linear.Identity": False, "torch.nn.modules.activation.Sigmoid": True}
"""By the name in a cross-encoder's config: is a score the sigmoid of the output?"""


ACTS: Mapping[str, Activation | Literal["tanh"]] = {**PLAIN, "tanh": "tanh"}
"""Activations of a hidden layer, by their foreign names."""


def _tanh(r: ConfigReader) -> LayerConfig:
    return LayerConfig()


def _relu(r: ConfigReader) -> LayerConfig:
    return LayerConfig(activation="relu")


def _modernbert(r: ConfigReader) -> LayerConfig:
    norm = NormConfig(kind="layer", eps=r.positive("norm_eps", 1e-5), bias=r.get("norm_bias", bool, False))
    act = r.one_of("classifier_activation", ACTS, "gelu")
    return LayerConfig(activation=act, bias=r.get("classifier_bias", bool, False), norm=norm)


@dataclass(frozen=True)
class Layout:
    """The tensor names of a head. out: its last matrix; bias: does that have a bias? dense, norm: of its hidden layer; layer: reads the config of
    that layer. pooling: of the sequence; None: by `classifier_pooling`. trunk: prefix of the trunk's names, if it is not the family's."""

    out: str
    dense: str | None = None
    layer: Callable[[ConfigReader], LayerConfig] = _tanh
    norm: str | None = None
    pooling: Pooling | None = "cls"
    bias: bool = True
    trunk: str | None = None

    def names(self, layer: LayerConfig | None) -> dict[str, str]:
        """Our names of the head's tensors to theirs, without a bias of the last matrix if theirs has none."""
        parts = {"head": (self.out, ("weight", "bias") if self.bias else ("weight",))}
        if layer is not None and self.dense is not None:
            parts["head.layer"] = (self.dense, ("weight", "bias") if layer.bias else ("weight",))
            if layer.norm is not None and self.norm is not None:
                parts["head.layer.norm"] = (self.norm, ("weight", "bias") if layer.norm.bias else ("weight",))
        return {f"{ours}.{k}": f"{theirs}.{k}" for ours, (theirs, kinds) in parts.items() for k in kinds}


_TOKENS, _ANSWERS = Layout("classifier"), Layout("qa_outputs")
_BERT: dict[Kind, Layout] = {
    "sequence": Layout("classifier", dense="bert.pooler.dense"),
    "tokens": _TOKENS,
    "answers": _ANSWERS,
}
_FAIRSEQ = _BERT | {"sequence": Layout("classifier.out_proj", dense="classifier.dense")}
_MODERNBERT = Layout("classifier", dense="head.dense", layer=_modernbert, norm="head.norm", pooling=None)
_SCORE = Layout("score", pooling="last", bias=False)
_REWARDS: dict[Kind, Layout] = {"sequence": _SCORE}
_TAGGERS = _REWARDS | {"tokens": Layout("score")}
_DECODER = _TAGGERS | {"answers": Layout("qa_outputs", trunk="transformer.")}
LAYOUTS: dict[str, dict[Kind, Layout]] = {
    "bert": _BERT,
    "distilbert": _BERT | {"sequence": Layout("classifier", dense="pre_classifier", layer=_relu)},
    "modernbert": dict.fromkeys(("sequence", "tokens", "answers"), _MODERNBERT),
    **dict.fromkeys(("roberta", "xlm-roberta", "mpnet"), _FAIRSEQ),
    "esm": {kind: _FAIRSEQ[kind] for kind in ("sequence", "tokens")},
    "gpt2": {"sequence": _SCORE, "tokens": _TOKENS, "answers": _ANSWERS},
    "mistral": _TAGGERS | {"answers": _ANSWERS},
    **dict.fromkeys(("llama", "qwen2", "qwen3", "smollm3"), _DECODER),
    **dict.fromkeys(("gemma2", "phi3"), _TAGGERS),
    **dict.fromkeys(("gemma3", "gemma3_text", "olmo2"), _REWARDS),
}
"""By `model_type`: the transformers classes with a head."""


@dataclass(frozen=True)
class FoundHead:
    """The head of a checkpoint: its architecture, kind and layout (None: not supported), and its foreign tensor names."""

    architecture: str
    kind: Kind
    layout: Layout | None
    names: frozenset[str]


def find_head(r: ConfigReader, names: Collection[str]) -> FoundHead | None:
    """The head in a config and in the tensor names of its checkpoint; None without a head, or for an unknown one."""
    known = LAYOUTS.get(str(r.data.get("model_type")), {})
    architectures = r.data.get("architectures")
    for architecture in map(str, architectures if isinstance(architectures, list) else []):
        kind = next((k for suffix, k in HEAD_KINDS.items() if architecture.endswith(suffix)), None)
        if kind is not None and kind in known and f"{known[kind].out}.weight" in names:
            modules = [p for p in (known[kind].out, known[kind].dense, known[kind].norm) if p is not None]
            tensors = {n for n in names if n.rsplit(".", 1)[0] in modules}
            return FoundHead(architecture, kind, known[kind], frozenset(tensors))
        if known and architecture.endswith(UNREAD):
            return FoundHead(
                architecture, "sequence", None, frozenset(n for n in names if n.startswith(PLACES))
            )
    return None


def as_stored(family: Family, layout: Layout | None) -> Family:
    """The family, with the trunk's prefix in a class with such a head, in files and in memory."""
    if layout is None or layout.trunk is None:
        return family
    return replace(
        family,
        checkpoint_prefixes=(*family.checkpoint_prefixes, (layout.trunk, family.prefix)),
        memory=(*family.memory, ("^" + re.escape(family.prefix), layout.trunk)),
    )


def open_head(
    r: ConfigReader, source: WeightSource, found: FoundHead, folder: Path, cfg: BaseConfig
) -> tuple[OwnHead | None, list[str]]:
    """The head of a folder; or for an unsupported head None and notices: the trunk opens without it."""
    if found.layout is None:
        return None, [f"the head of {found.architecture} is left out: no task supports it"]
    pairs, width = read_pairs(folder, cfg.text.context), cfg.trunks["text"].width
    try:
        head = r.checked(lambda: read_head(r, source, found, pairs))
    except ConfigError as e:
        return None, [f"the head of {found.architecture} is left out: {e.cause} ({e.remedy})"]
    if (features := head.tensors["head.weight"].shape[1]) != width:
        raise ArtifactError(
            f"{source.where}: its head reads {features} features, its trunk has width {width}",
            "take an intact copy of the folder",
        )
    return head, []


def read_head(r: ConfigReader, source: WeightSource, found: FoundHead, pairs: Pairs) -> OwnHead:
    """The head. Raises ConfigError for unsupported settings, ArtifactError for missing or mismatched tensors."""
    assert found.layout is not None
    out = found.layout.out
    task, cfg = read_config(r, found, len(_tensor(source, f"{out}.weight")), pairs)
    names = found.layout.names(cfg.layer)
    if f"{out}.bias" in found.names:  # some have one, although the family's own have none
        names["head.bias"] = f"{out}.bias"
    if unused := sorted(found.names - set(names.values())):
        raise ConfigError(f"{r.where}: tensor {unused[0]!r}", "this head does not use it")
    tensors = {ours: _tensor(source, theirs) for ours, theirs in names.items()}
    tensors.setdefault("head.bias", torch.zeros(len(tensors["head.weight"])))
    try:
        return OwnHead(task, cfg, Head.of(cfg, tensors).tensors)
    except ConfigError as e:
        raise ArtifactError(f"{source.where}: {e.cause}", "take an intact copy of the folder") from None


def _tensor(source: WeightSource, name: str) -> Tensor:
    if name not in source.shapes():
        raise ArtifactError(
            f"{source.where}: tensor {name!r} is missing: its head needs it",
            "take an intact copy of the folder",
        )
    return source.read(name).float().clone()


def read_config(r: ConfigReader, found: FoundHead, outputs: int, pairs: Pairs) -> tuple[str, HeadConfig]:
    """(task, config) of a head with this number of outputs."""
    layout = found.layout
    assert layout is not None
    layer = None if layout.dense is None else layout.layer(r)
    names = _labels(r, outputs)
    if found.kind == "answers":
        if outputs != 2:
            raise ConfigError(
                f"{r.where}: a head of {outputs} outputs for answers", "it must have two: first and last"
            )
        return "extract", HeadConfig(gives="answer", layer=layer, typed=pairs.typed, limit=pairs.limit)
    if found.kind == "tokens":
        labels = tuple(dict.fromkeys(tag_parts(n)[1] for n in names if n != OUTSIDE))
        return "tag", HeadConfig(labels=labels, gives="spans", tags=names, layer=layer, long="windows")
    pooling: Pooling = (
        r.one_of("classifier_pooling", POOLINGS, "cls") if layout.pooling is None else layout.pooling
    )
    # Such a checkpoint has no setting for longer texts; its users truncate them.
    cfg = HeadConfig(
        labels=names, pooling=pooling, layer=layer, pairs=outputs > 1, typed=pairs.typed, long="head"
    )
    if pooling == "last":
        cfg = replace(cfg, pad=r.get("pad_token_id", int) if r.has("pad_token_id") else None)
    problem = r.get("problem_type", str, "")
    if problem == "multi_label_classification":
        return "classify", replace(cfg, gives="many")
    if outputs == 1:
        task, sigmoid = _value(r, problem, pairs.activation, decoder=pooling == "last")
        limit = pairs.limit if task == "rerank" else None
        return task, replace(cfg, labels=(), gives="value", sigmoid=sigmoid, limit=limit)
    if problem == "regression":
        raise ConfigError(f"{r.where}: a regression of {outputs} numbers", "only one number is supported")
    return "classify", cfg


POOLINGS: Mapping[str, Pooling] = {"cls": "cls", "mean": "mean"}


def _value(r: ConfigReader, problem: str, crossing: str | None, *, decoder: bool) -> tuple[str, bool]:
    """The task of a head of one output, and whether its score is the sigmoid. A head trained by transformers' own loss is marked as regression; a
    decoder's is a reward; the others are cross-encoders, as in sentence-transformers."""
    own = r.get("sentence_transformers", dict, {}).get("activation_fn")
    named = crossing or own or r.get("sbert_ce_default_activation_function", str, "")
    if crossing is None and not named:
        if problem == "regression":
            return "regress", False
        if decoder:
            return "reward", False
    if named and named not in ACTIVATIONS:
        raise ConfigError(f"{r.where}: the activation is {named!r}", f"accepted: {', '.join(ACTIVATIONS)}")
    return "rerank", ACTIVATIONS[named] if named else True


def _labels(r: ConfigReader, outputs: int) -> tuple[str, ...]:
    """The names of the outputs, each once: a repeated name gets its index."""
    for key in ("num_labels", "label2id", "_num_labels"):
        r.has(key)
    id2label = r.get("id2label", dict, {})
    if id2label and set(id2label) != {str(i) for i in range(outputs)}:
        raise r.refuse("id2label", f'a name for each of the {outputs} outputs, from "0" up')
    names = [str(id2label.get(str(i), f"LABEL_{i}")) for i in range(outputs)]
    return tuple(n if n not in names[:i] else f"{n} ({i})" for i, n in enumerate(names))
