"""A linear head as the class of a family has one: its scale goes into the last matrix, and it passes a hidden layer unchanged. C outputs, D channels.

A hidden layer with relu passes z as relu(z) and relu(-z), whose difference z is. One with tanh passes small numbers: (tanh(ez) - tanh(-ez)) / 2e = z (1 - (ez)^2 / 3 + ...), which
for e = 2^-14 and |z| up to 10 differs from z by less than fp32 can tell (2^-24 of it), and a power of two costs no digit. A layer norm behind it divides by one number
whatever the text is, where the channels that hold nothing are 1 and -1: those of z add nothing to the mean, and less than 2^-19 of theirs to the variance.
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
"""What a number is multiplied by before it goes through tanh."""
SATURATED = 20.0
"""tanh of it is 1 in fp32."""
FREE = {"classifier_activation": "tanh", "classifier_bias": True}
"""What a config may choose of a head's hidden layer, as it suits a linear head."""


def as_layout(head: OwnHead, layout: Layout, config: Tree) -> OwnHead:
    """The same head with no scale of its own, and with the hidden layer that the layout has. config: that of the trunk. Raises ConfigError where it
    has too many outputs for that."""
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
    assert layer.activation in ("tanh", "relu"), "no layout has another"
    C, D = w_CD.shape
    idle = (D - 2 * C) // 2 * 2
    if idle < (0 if layer.norm is None else 2):
        raise ConfigError(
            f"a linear head of {C} outputs on {D} channels: it needs two channels of the hidden layer for each",
            "export the base alone",
        )
    small = SMALL if layer.activation == "tanh" else 1.0
    dense_DD, bias_D, out_CD = (torch.zeros(n, dtype=torch.float64) for n in ((D, D), (D,), (C, D)))
    both_EC = torch.cat((torch.eye(C), -torch.eye(C))).double()
    dense_DD[: 2 * C] = small * both_EC @ w_CD
    bias_D[: 2 * C] = small * both_EC @ head.tensors["head.bias"].double()
    out_CD[:, : 2 * C] = both_EC.T * cfg.scale / (2 * small if layer.activation == "tanh" else 1.0)
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
