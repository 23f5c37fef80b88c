"""Converts a linear head to the layout of a family: its scale goes into the last matrix, and it passes a hidden layer unchanged. C outputs, D channels.

A hidden layer with relu passes z as relu(z) and relu(-z), whose difference is z. One with tanh passes small numbers: (tanh(ez) - tanh(-ez)) / 2e =
z (1 - (ez)^2 / 3 + ...). For e = 2^-14 and |z| up to 10 this differs from z by less than fp32 resolution (2^-24 of it), and a power of two costs
no precision. A layer norm after it divides by the same number for every text if the idle channels are 1 and -1: the channels of z add nothing to
the mean, and less than 2^-19 of theirs to the variance.
"""

from dataclasses import replace

import torch
from torch import Tensor

from onebase.base.head import OwnHead
from onebase.errors import ConfigError
from onebase.formats.families.heads import Layout
from onebase.formats.family import Tree
from onebase.formats.reader import ConfigReader

SMALL = 2.0**-14
"""The factor of a number before tanh."""
SATURATED = 20.0
"""Its tanh is 1 in fp32."""
FREE = {"classifier_activation": "tanh", "classifier_bias": True}
"""The free settings of a head's hidden layer, chosen for a linear head."""


def as_layout(head: OwnHead, layout: Layout, config: Tree) -> OwnHead:
    """The same head without its own scale, and with the hidden layer of the layout. config: of the trunk. Raises ConfigError for too many
    outputs."""
    cfg, tensors = head.config, dict(head.tensors)
    if layout.dense is not None and cfg.layer is None:
        return _behind_layer(head, layout, config)
    if (cfg.mean, cfg.scale) == (0.0, 1.0):
        return head
    tensors["head.weight"] = (tensors["head.weight"].double() * cfg.scale).float()
    tensors["head.bias"] = (tensors["head.bias"].double() * cfg.scale + cfg.mean).float()
    return replace(head, config=replace(cfg, mean=0.0, scale=1.0), tensors=tensors)


def _behind_layer(head: OwnHead, layout: Layout, config: Tree) -> OwnHead:
    cfg, w_CD = head.config, head.tensors["head.weight"].double()
    layer = layout.layer(ConfigReader(config | FREE, "the exported config"))
    assert layer.activation in ("tanh", "relu"), "no layout has another activation"
    C, D = w_CD.shape
    idle = (D - 2 * C) // 2 * 2
    if idle < (0 if layer.norm is None else 2):
        raise ConfigError(
            f"a linear head of {C} outputs on {D} channels: it needs two channels of the hidden layer per output",
            "export the base without the head",
        )
    small = SMALL if layer.activation == "tanh" else 1.0
    dense_DD, bias_D, out_CD = (torch.zeros(n, dtype=torch.float64) for n in ((D, D), (D,), (C, D)))
    signs_EC = torch.cat((torch.eye(C), -torch.eye(C))).double()
    dense_DD[: 2 * C] = small * signs_EC @ w_CD
    bias_D[: 2 * C] = small * signs_EC @ head.tensors["head.bias"].double()
    out_CD[:, : 2 * C] = signs_EC.T * cfg.scale / (2 * small if layer.activation == "tanh" else 1.0)
    tensors: dict[str, Tensor] = {}
    if layer.norm is not None:
        bias_D[2 * C : 2 * C + idle] = torch.tensor([SATURATED, -SATURATED]).repeat(idle // 2)
        out_CD *= (idle / D + layer.norm.eps) ** 0.5
        tensors["head.layer.norm.weight"] = torch.ones(D)
        if layer.norm.bias:
            tensors["head.layer.norm.bias"] = torch.zeros(D)
    if layer.bias:
        tensors["head.layer.bias"] = bias_D.float()
    tensors |= {"head.layer.weight": dense_DD.float(), "head.weight": out_CD.float()}
    tensors["head.bias"] = torch.full((C,), cfg.mean)
    return replace(head, config=replace(cfg, layer=layer, mean=0.0, scale=1.0), tensors=tensors)
