"""Heads of published models: which tensors they are, and what they mean; read and written by one table.

An architecture is a trunk and a kind of head (`BertForSequenceClassification`). Where a family keeps the parts of a head is a `Layout`; all
else (labels, problem type, how a cross-encoder's score is given) is in the config. Source: transformers `modeling_layers.py` and the
`modeling_*.py` of each family, sentence-transformers `cross_encoder/model.py`, read for names and defaults.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.base.head import Head, HeadConfig, LayerConfig, OwnHead, Pooling
from onebase.errors import ArtifactError, ConfigError
from onebase.interop.families.encoder import PLAIN
from onebase.interop.family import Tree
from onebase.interop.place import Source
from onebase.interop.reader import Reader
from onebase.interop.sentence import Pairs, read_pairs
from onebase.model.config import NormConfig

Kind = Literal["sequence", "tokens"]
KINDS: dict[str, Kind] = {"ForSequenceClassification": "sequence", "ForTokenClassification": "tokens"}
MAX_LABELS = 2**20
ACTIVATIONS = {"torch.nn.modules.linear.Identity": False, "torch.nn.modules.activation.Sigmoid": True}
"""By their names in a cross-encoder's config: is a score the sigmoid of the output?"""


def _tanh(r: Reader) -> LayerConfig:
    return LayerConfig()


def _relu(r: Reader) -> LayerConfig:
    return LayerConfig(activation="relu")


def _modernbert(r: Reader) -> LayerConfig:
    norm = NormConfig(kind="layer", eps=r.positive("norm_eps", 1e-5), bias=r.get("norm_bias", bool, False))
    act = r.one_of("classifier_activation", PLAIN, "gelu")
    return LayerConfig(activation=act, bias=r.get("classifier_bias", bool, False), norm=norm)


@dataclass(frozen=True)
class Layout:
    """Where a head lies. out: the name of its last matrix; bias: has that one a bias? dense, norm: of its hidden layer, which `layer` reads the
    config of. pooling: what it reads of a sequence; None: as `classifier_pooling` says."""

    out: str
    dense: str | None = None
    layer: Callable[[Reader], LayerConfig] = _tanh
    norm: str | None = None
    pooling: Pooling | None = "cls"
    bias: bool = True

    def names(self, layer: LayerConfig | None) -> dict[str, str]:
        """Our names of the head's tensors to theirs; a bias of the last matrix that they do not have is left out."""
        parts = {"head": (self.out, ("weight", "bias") if self.bias else ("weight",))}
        if layer is not None and self.dense is not None:
            parts["head.layer"] = (self.dense, ("weight", "bias") if layer.bias else ("weight",))
            if layer.norm is not None and self.norm is not None:
                parts["head.layer.norm"] = (self.norm, ("weight", "bias") if layer.norm.bias else ("weight",))
        return {f"{ours}.{k}": f"{theirs}.{k}" for ours, (theirs, kinds) in parts.items() for k in kinds}


_TOKENS = Layout("classifier")
_FAIRSEQ: dict[Kind, Layout] = {
    "sequence": Layout("classifier.out_proj", dense="classifier.dense"),
    "tokens": _TOKENS,
}
_MODERNBERT = Layout("classifier", dense="head.dense", layer=_modernbert, norm="head.norm", pooling=None)
_DECODER: dict[Kind, Layout] = {
    "sequence": Layout("score", pooling="last", bias=False),
    "tokens": Layout("score", pooling="last"),
}
LAYOUTS: dict[str, dict[Kind, Layout]] = {
    "bert": {"sequence": Layout("classifier", dense="bert.pooler.dense"), "tokens": _TOKENS},
    "distilbert": {
        "sequence": Layout("classifier", dense="pre_classifier", layer=_relu),
        "tokens": _TOKENS,
    },
    "modernbert": {"sequence": _MODERNBERT, "tokens": _MODERNBERT},
    **dict.fromkeys(("roberta", "xlm-roberta", "esm", "mpnet"), _FAIRSEQ),
    "gpt2": {**_DECODER, "tokens": _TOKENS},
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gemma3_text", "phi3", "smollm3"), _DECODER
    ),
    **dict.fromkeys(("olmo2", "granite"), _DECODER),
}
"""By `model_type`."""


@dataclass(frozen=True)
class Found:
    """The head of a checkpoint: its architecture, kind and layout, and the names of its tensors there."""

    architecture: str
    kind: Kind
    layout: Layout
    names: frozenset[str]


def find_head(r: Reader, names: Collection[str]) -> Found | None:
    """The head that a config and the names of a checkpoint's tensors speak of; None for a trunk alone, or a head that is not known."""
    known = LAYOUTS.get(str(r.data.get("model_type")), {})
    said = r.data.get("architectures")
    for architecture in map(str, said if isinstance(said, list) else []):
        kind = next((k for suffix, k in KINDS.items() if architecture.endswith(suffix)), None)
        if kind is not None and kind in known and f"{known[kind].out}.weight" in names:
            at = [p for p in (known[kind].out, known[kind].dense, known[kind].norm) if p is not None]
            found = {n for n in names if n.rsplit(".", 1)[0] in at}
            return Found(architecture, kind, known[kind], frozenset(found))
    return None


def open_head(
    r: Reader, source: Source, found: Found, folder: Path, cfg: BaseConfig
) -> tuple[OwnHead | None, list[str]]:
    """The head of a folder; or none, and what is to be said of it, where it is none that is known here: the trunk opens without it."""
    pairs, width = read_pairs(folder, cfg.text.context), cfg.trunks["text"].width
    try:
        head = r.checked(lambda: read_head(r, source, found, pairs))
    except ConfigError as e:
        return None, [f"the head of {found.architecture} is left out: {e.cause} ({e.remedy})"]
    if (features := head.tensors["head.weight"].shape[1]) != width:
        raise ArtifactError(
            f"{source.where}: its head reads {features} features, its trunk gives {width}",
            "take an intact copy of the folder",
        )
    return head, []


def read_head(r: Reader, source: Source, found: Found, pairs: Pairs) -> OwnHead:
    """The head. Raises ConfigError for what no head here means, ArtifactError for tensors
    that are missing or do not fit."""
    out = found.layout.out
    task, cfg = _config(r, found, len(_tensor(source, f"{out}.weight")), pairs)
    names = found.layout.names(cfg.layer)
    if f"{out}.bias" in found.names:  # some have one where the family's own have none
        names["head.bias"] = f"{out}.bias"
    if unused := sorted(found.names - set(names.values())):
        raise ConfigError(f"{r.where}: tensor {unused[0]!r}", "this head has no place for it")
    tensors = {ours: _tensor(source, theirs) for ours, theirs in names.items()}
    tensors.setdefault("head.bias", torch.zeros(len(tensors["head.weight"])))
    try:
        return OwnHead(task, cfg, Head.of(cfg, tensors).tensors)
    except ConfigError as e:
        raise ArtifactError(f"{source.where}: {e.cause}", "take an intact copy of the folder") from None


def _tensor(source: Source, name: str) -> Tensor:
    if name not in source.shapes():
        raise ArtifactError(
            f"{source.where}: tensor {name!r} is missing, which its head needs",
            "take an intact copy of the folder",
        )
    return source.read(name).float().clone()


def _config(r: Reader, found: Found, outputs: int, pairs: Pairs) -> tuple[str, HeadConfig]:
    """(task, config) of a head of so many outputs."""
    layout = found.layout
    layer = None if layout.dense is None else layout.layer(r)
    names = _labels(r, outputs)
    if found.kind == "tokens":
        labels = tuple(dict.fromkeys(tag_parts(n)[1] for n in names if n != "O"))
        return "tag", HeadConfig(labels=labels, gives="spans", tags=names, layer=layer)
    pooling: Pooling = (
        r.one_of("classifier_pooling", _POOLINGS, "cls") if layout.pooling is None else layout.pooling
    )
    cfg = HeadConfig(labels=names, pooling=pooling, layer=layer, pairs=outputs > 1, typed=pairs.typed)
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
        raise ConfigError(f"{r.where}: a regression of {outputs} numbers", "a head gives one number")
    return "classify", cfg


_POOLINGS: Mapping[str, Pooling] = {"cls": "cls", "mean": "mean"}


def _value(r: Reader, problem: str, crossing: str | None, *, decoder: bool) -> tuple[str, bool]:
    """The task of a head of one output, and whether its sigmoid is given. What was trained by transformers' own loss says that it is a
    regression; a decoder's is a reward; what is left is a cross-encoder, as sentence-transformers reads it."""
    own = r.get("sentence_transformers", dict, {}).get("activation_fn")
    named = crossing or own or r.get("sbert_ce_default_activation_function", str, "")
    if crossing is None and not named:
        if problem == "regression":
            return "regress", False
        if decoder:
            return "reward", False
    if named and named not in ACTIVATIONS:
        raise ConfigError(f"{r.where}: scores by {named!r}", f"accepted: {', '.join(ACTIVATIONS)}")
    return "rerank", ACTIVATIONS[named] if named else True


def _labels(r: Reader, outputs: int) -> tuple[str, ...]:
    """The names of the outputs, each once: one that comes again gets its number."""
    for key in ("num_labels", "label2id", "_num_labels"):
        r.has(key)
    said = r.get("id2label", dict, {})
    if said and set(said) != {str(i) for i in range(outputs)}:
        raise r.refuse("id2label", f'a name for each of the {outputs} outputs, from "0" up')
    names = [str(said.get(str(i), f"LABEL_{i}")) for i in range(outputs)]
    return tuple(n if n not in names[:i] else f"{n} ({i})" for i, n in enumerate(names))


def tag_parts(name: str) -> tuple[bool, str]:
    """(begins a span, its label) of the name of a token's class: B-x, I-x, or x alone, which goes on; S- and U- begin, E- and L- go on."""
    if len(name) > 2 and name[1] == "-" and name[0] in "BISUEL":
        return name[0] in "BSU", name[2:]
    return False, name


def written_head(model_type: str, head: OwnHead, config: Tree) -> tuple[Tree, dict[str, Tensor]]:
    """The keys that say what a head is, on top of the trunk's `config`, and its tensors by their names there. Raises ConfigError where
    the family's layout cannot say it: it is proved by reading it back."""
    cfg = head.config
    kind: Kind = "tokens" if cfg.gives == "spans" else "sequence"
    layout = LAYOUTS.get(model_type, {}).get(kind)
    if layout is None:
        raise ConfigError(
            f"a head for {head.task} on a base of the {model_type} layout", "export the base alone"
        )
    suffix = next(s for s, k in KINDS.items() if k == kind)
    names = cfg.tags or (spans_tags(cfg.labels) if cfg.gives == "spans" else cfg.labels) or ("LABEL_0",)
    tree = config | {
        "architectures": [_stem(config) + suffix],
        "id2label": {str(i): n for i, n in enumerate(names)},
        "label2id": {n: i for i, n in enumerate(names)},
        "problem_type": _PROBLEMS.get((cfg.gives, head.task)),
    }
    if layout.dense == "head.dense" and cfg.layer is not None:
        act = next(
            (name for name, ours in PLAIN.items() if ours == cfg.layer.activation), cfg.layer.activation
        )
        tree |= {"classifier_activation": act, "classifier_bias": cfg.layer.bias}
        tree |= {"classifier_pooling": cfg.pooling} if kind == "sequence" else {}
    if cfg.pad is not None:
        tree["pad_token_id"] = cfg.pad
    crossing = next(n for n, sigmoid in ACTIVATIONS.items() if sigmoid == cfg.sigmoid)
    if head.task == "rerank":
        tree["sentence_transformers"] = {"activation_fn": crossing}
    tensors = dict(head.tensors)
    _prove(Found(tree["architectures"][0], kind, layout, frozenset()), head, tree)
    if not layout.bias and torch.count_nonzero(tensors["head.bias"]) == 0:
        del tensors["head.bias"]
    theirs = layout.names(cfg.layer)
    if odd := sorted(tensors.keys() - theirs.keys()):
        raise ConfigError(
            f"{odd[0]} of the head, for which {tree['architectures'][0]} has no place",
            "export the base alone",
        )
    return tree, {theirs[name]: t for name, t in tensors.items()}


_PROBLEMS = {
    ("one", "classify"): "single_label_classification",
    ("many", "classify"): "multi_label_classification",
    ("value", "regress"): "regression",
}


def _prove(found: Found, head: OwnHead, tree: Tree) -> None:
    """Raises ConfigError where the keys would be read as another head."""
    cfg = head.config
    r = Reader(tree, "the exported config")
    try:
        task, again = _config(r, found, cfg.outputs, Pairs(None, cfg.limit, cfg.typed))
    except ConfigError as e:
        raise ConfigError(f"{found.architecture} cannot express this head: {e.cause}", e.remedy) from None
    wanted = replace(cfg, tags=cfg.tags or spans_tags(cfg.labels)) if cfg.gives == "spans" else cfg
    if found.kind == "tokens":
        wanted = replace(wanted, pooling=again.pooling)
    for name in ("pooling", "layer", "gives", "labels", "tags", "mean", "scale", "sigmoid", "pad"):
        if getattr(again, name) != getattr(wanted, name):
            raise ConfigError(
                f"{found.architecture} cannot express a head whose {name} is {getattr(wanted, name)!r} (there it is {getattr(again, name)!r})",
                "export the base alone, or learn such a head (docs/bases.md)",
            )
    if task != head.task:
        raise ConfigError(f"{found.architecture} would be read as one for {task}", "export the base alone")


def spans_tags(labels: Collection[str]) -> tuple[str, ...]:
    """The names of a token's classes in our own order: outside, then begin and inside of each label."""
    return ("O", *(f"{part}-{label}" for label in labels for part in "BI"))


def _stem(config: Tree) -> str:
    """How the names of a family's architectures begin: `Bert` of `BertModel`."""
    if config["model_type"] == "gemma3_text":
        return "Gemma3Text"
    name = str(config["architectures"][0])
    for suffix in ("ForMaskedLM", "ForCausalLM", "LMHeadModel", "Model"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name
