"""A head on the hidden states of a base: its features, its layers, and the meaning of its outputs.

B examples, P features, C outputs. `methods/head.py` fits heads.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError
from onebase.modality.text.counts import TokenCounts
from onebase.modality.text.long import Long
from onebase.model.config import GATED, Activation, NormConfig
from onebase.model.feedforward import ACTIVATIONS
from onebase.model.norm import Norm

Pooling = Literal["last", "mean", "both", "all", "cls"]
"""How token states are pooled: last state; mean; both of these; `all`: both and the maximum of each channel; `cls`: first state."""

OUTSIDE = "O"
"""The class of tokens outside all spans."""
Read = Pooling | Literal["vector"]
"""A head's input: a pooling, or the base's own embedding of the text, with length 1 (`engine.features.vector_of`)."""


@config
class LayerConfig:
    """A hidden layer of a head, as wide as its input: norm(activation(x W^T + b))."""

    activation: Activation | Literal["tanh"] = "tanh"
    bias: bool = True
    norm: NormConfig | None = None

    def __post_init__(self) -> None:
        if self.activation in GATED:
            raise ConfigError(
                f"a head's hidden layer has the gated activation {self.activation!r}",
                "use one without a gate",
            )


@config
class HeadConfig:
    """`labels` in the order of the head's outputs. `reads`: text, or a kind of file: image, audio (engine.image_features documents the pooling of images). `pooling`: of
    the states, or "vector": the base's own embedding of a text, with length 1. layer: a hidden layer before the outputs.

    gives: "one" of the labels; "many" (multilabel, a probability per label); a "value" (no labels; mean + scale * output, in the units
    of the data); "spans" (outputs per token: outside of all spans, then begin and inside of each label; no pooling); an "answer"
    (two outputs per token: the start and the end of the answer to a question); or "masks" (an output per pixel of each patch, `patch` x `patch`
    pixels: `base.masks`), or "contacts" (an output per pair of residues for each of `bins`, edges in angstrom between which their distance is:
    `base.pairs`).
    tags: names of the outputs per token, if they have another order or scheme (B-name, I-name, name, O). sigmoid: apply a sigmoid to a
    value. pairs: a row may have a `text_pair`, which is read with its text. typed: the second text of a pair has type 1. pad: tokens of
    this id at the end of a text are not read. limit: maximum tokens of a text or a pair (null: the context). long: what to do with texts
    beyond the limit (of a pair, the longer text is truncated, unless it is refused). counts: the head also reads how often each token
    occurs in the text (for "one" label, without a hidden layer). detail: of masks, channels of the convolutions that draw them at the resolution of
    pixels (`base.mask_detail`); 0: none.
    """

    labels: tuple[str, ...] = ()
    pooling: Read = "both"
    reads: str = "text"
    gives: Literal["one", "many", "value", "spans", "answer", "masks", "contacts"] = "one"
    mean: float = 0.0
    scale: float = 1.0
    layer: LayerConfig | None = None
    tags: tuple[str, ...] = ()
    sigmoid: bool = False
    pairs: bool = False
    typed: bool = True
    pad: int | None = None
    limit: int | None = None
    long: Long = later("refuse")
    counts: bool = later(False)
    patch: int = later(0)
    bins: tuple[float, ...] = later(())
    detail: int = later(0)

    def __post_init__(self) -> None:
        if not self.labels and self.gives not in ("value", "answer", "masks", "contacts"):
            raise ConfigError("a head has no labels", "name them in `labels`")
        if (self.gives == "masks") != (self.patch > 0):
            raise ConfigError(
                f"a head that gives {self.gives} has patches of {self.patch} pixels",
                "masks need the patch of the image codec, other heads have none (0)",
            )
        if (self.gives == "contacts") != bool(self.bins) or list(self.bins) != sorted(set(self.bins)):
            raise ConfigError(
                f"a head that gives {self.gives} has the bins {list(self.bins)}",
                "contacts need edges of distances in rising order, other heads have none",
            )
        if self.detail < 0 or (self.detail and self.gives != "masks"):
            raise ConfigError(
                f"a head that gives {self.gives} has detail {self.detail}",
                "detail is for masks, and at least 0",
            )
        if not (math.isfinite(self.mean) and 0 < self.scale < math.inf):
            raise ConfigError(
                f"a head has mean {self.mean} and scale {self.scale}",
                "both must be finite, and scale above 0",
            )
        if self.counts and (self.gives != "one" or self.reads != "text" or self.layer is not None):
            raise ConfigError(
                "a head that counts tokens gives one label of a text, without a hidden layer",
                "set counts to false",
            )

    @property
    def outputs(self) -> int:
        """Number of outputs per text, per token, per pair of tokens, or per patch of an image."""
        if self.gives == "value":
            return 1
        if self.gives == "answer":
            return 2
        if self.gives == "masks":
            return self.patch**2
        if self.gives == "contacts":
            return len(self.bins) + 1
        if self.gives == "spans":
            return len(self.tags) or 1 + 2 * len(self.labels)
        return len(self.labels)

    @property
    def tag_numbers(self) -> tuple[int, ...]:
        """Our tag number (methods/spans.py) of each output per token: 0 outside, 1 + 2 i begins a span of label i, 2 + 2 i is inside it."""
        numbers = []
        for name in self.tags or span_tags(self.labels):
            begins, label = tag_parts(name)
            numbers.append(0 if name == OUTSIDE else 2 + 2 * self.labels.index(label) - begins)
        return tuple(numbers)


def tag_parts(name: str) -> tuple[bool, str]:
    """(begins a span, its label) of a token class: B-x begins, I-x and a plain x are inside; S- and U- begin, E- and L- are inside."""
    if len(name) > 2 and name[1] == "-" and name[0] in "BISUEL":
        return name[0] in "BSU", name[2:]
    return False, name


def span_tags(labels: Sequence[str]) -> tuple[str, ...]:
    """The names of the outputs per token in our own order: outside, then begin and inside of each label."""
    return (OUTSIDE, *(f"{part}-{label}" for label in labels for part in "BI"))


class HeadLayer(nn.Module):
    """norm(activation(x W^T + b)) in fp32, see LayerConfig."""

    def __init__(self, cfg: LayerConfig, features: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.weight = nn.Parameter(torch.zeros(features, features))
        self.bias = nn.Parameter(torch.zeros(features)) if cfg.bias else None
        self.norm = None if cfg.norm is None else Norm(cfg.norm, features)

    def forward(self, x_BP: Tensor) -> Tensor:
        z_BP = F.linear(x_BP, self.weight, self.bias)
        y_BP = torch.tanh(z_BP) if self.cfg.activation == "tanh" else ACTIVATIONS[self.cfg.activation](z_BP)
        return y_BP if self.norm is None else self.norm(y_BP)


class Head(nn.Module):
    """z = x W^T + b in fp32, after a hidden layer if there is one; with a `vocabulary` of V tokens also + c U, of token counts c [B, V]."""

    def __init__(
        self, features: int, classes: int, layer: LayerConfig | None = None, vocabulary: int | None = None
    ) -> None:
        super().__init__()
        self.layer = None if layer is None else HeadLayer(layer, features)
        self.weight_CP = nn.Parameter(torch.zeros(classes, features))
        self.bias_C = nn.Parameter(torch.zeros(classes))
        self.counts_VC = None if vocabulary is None else nn.Parameter(torch.zeros(vocabulary, classes))

    def forward(self, x_BP: Tensor, counts_BV: TokenCounts | None = None) -> Tensor:
        assert (counts_BV is None) == (self.counts_VC is None), "token counts are for heads that read them"
        x_BP = x_BP.float()
        z_BC = F.linear(x_BP if self.layer is None else self.layer(x_BP), self.weight_CP, self.bias_C)
        return z_BC if counts_BV is None or self.counts_VC is None else z_BC + counts_BV.times(self.counts_VC)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All parameters by their names in a file: `head.weight` [C, P], `head.bias` [C], `head.layer.weight` [P, P], `head.counts` [V, C]
        and so on."""
        return {file_name(name): p.detach() for name, p in self.named_parameters()}

    @classmethod
    def sized(
        cls, cfg: HeadConfig, features: int, vocabulary: int | None, tensors: Mapping[str, Tensor]
    ) -> "Head":
        """A new head of this config, in the sizes of these tensors."""
        return cls(features, cfg.outputs, cfg.layer, vocabulary)

    @classmethod
    def of(cls, cfg: HeadConfig, tensors: Mapping[str, Tensor]) -> "Head":
        """The head with these tensors. Raises ConfigError where their names or shapes do not match the config."""
        weight = tensors.get("head.weight")
        features = weight.shape[1] if weight is not None and weight.ndim == 2 else 0
        vocabulary = len(tensors.get("head.counts", ())) if cfg.counts else None
        with torch.device("meta"):  # allocate nothing for tensors that do not fit
            head = cls.sized(cfg, features, vocabulary, tensors)
        own = {file_name(name): p for name, p in head.named_parameters()}
        if odd := sorted(n for n in own.keys() | tensors.keys() if not _fits(own.get(n), tensors.get(n))):
            layer = " after a hidden layer" if cfg.layer else ""
            raise ConfigError(
                f"the head's tensors do not match its config of {cfg.outputs} outputs{layer} ({', '.join(odd)})",
                "use the adapter as it was saved",
            )
        head.to_empty(device="cpu")
        with torch.no_grad():
            for name, p in head.named_parameters():
                p.copy_(tensors[file_name(name)])
        return head


def file_name(name: str) -> str:
    """The name of a head's parameter in a file."""
    return "head." + {"weight_CP": "weight", "bias_C": "bias", "counts_VC": "counts"}.get(name, name)


def _fits(own: Tensor | None, given: Tensor | None) -> bool:
    return own is not None and given is not None and own.shape == given.shape and own.numel() > 0


@dataclass(frozen=True)
class OwnHead:
    """The head published with a base: its task, its config, and its tensors as in an adapter."""

    task: str
    config: HeadConfig
    tensors: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class ContactHead:
    """A logistic regression from attention maps to contacts of residues: a weight per block and head, float32 [C], and a bias."""

    weight_C: Tensor
    bias: float
