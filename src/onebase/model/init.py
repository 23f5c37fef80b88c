"""Starting weights of a trunk, drawn from a generator so that a seed fixes them."""

import torch
from torch import nn

from onebase.model.norm import Norm
from onebase.model.proj import Proj
from onebase.model.trunk import Scale, Trunk


@torch.no_grad()
def init_trunk(trunk: Trunk, generator: torch.Generator) -> None:
    """Normal(0, std) projections, plain norms; with `zero_out` the projections that end a residual branch start at zero."""
    for name, module in trunk.named_modules():
        if isinstance(module, Norm):
            module.reset()
        elif isinstance(module, Proj):
            assert module.weight is not None
            last = name.rsplit(".", 1)[-1]
            if trunk.cfg.init.zero_out and last in ("o", "down"):
                nn.init.zeros_(module.weight)
            else:
                nn.init.normal_(module.weight, 0.0, trunk.cfg.init.std, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Scale):
            nn.init.ones_(module.weight)
    if trunk.relative is not None:
        nn.init.normal_(trunk.relative, 0.0, trunk.cfg.init.std, generator)
    if trunk.lambdas is not None:
        trunk.lambdas.copy_(torch.tensor([1.0, 0.0]).expand_as(trunk.lambdas))
