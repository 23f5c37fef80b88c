"""Two-way tables of tensor names: their name and ours, where `{i}` is the number of a block.

Our names have the roots of paths in a config (formats/fields.py): `("model.layers.{i}.self_attn.q_proj", "block.attn.q")` is a weight, and a
bias if the block has one. The config determines which tensors exist, and their shapes: a line is skipped if the model lacks its tensor.
Several names of ours, separated by spaces, are concatenated in one tensor of theirs. Steps after the names are applied first.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch

from onebase.base.config import BaseConfig
from onebase.base.model import BaseModel
from onebase.formats.family import Family
from onebase.formats.fields import Table
from onebase.formats.rules import Ignore, Rule, Rules, Shape, Split, Step, Tie
from onebase.model.config import BlockConfig
from onebase.model.trunk import Block

Names = Iterable[tuple[str, str] | tuple[str, str, Step] | Tie | Ignore]
ENDS = ("", ".weight", ".bias")
OLD = (("gamma", ".weight"), ("beta", ".bias"))
"""Parameter names of a layer norm in checkpoints converted from TensorFlow, and in ESM's."""


def under(prefix: str, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Lines of tensors with a common prefix: their name after `prefix`, and ours."""
    return [(prefix + theirs, ours) for theirs, ours in names.items()]


PARTS = ("attn.q", "attn.k", "attn.v", "attn.o", "attn_norm", "ff.up", "ff.down", "ff_norm")


def block_names(theirs: str) -> dict[str, str]:
    """Lines of a plain block. theirs: names of q, k, v, o, attention norm, up, down and feed-forward norm, separated by spaces."""
    return {name: f"block.{part}" for name, part in zip(theirs.split(), PARTS, strict=True)}


def rules_of(cfg: BaseConfig, kind: str, names: Names) -> list[Rule | Tie | Ignore]:
    """The rules of these lines for a base; `kind` is the trunk that `trunk`, `block` and `codec` refer to."""
    own, depth = parameters(cfg), len(cfg.trunks[kind].blocks)
    names = list(names)
    out: list[Rule | Tie | Ignore] = [x for x in names if not isinstance(x, tuple)]
    pairs = [x for x in names if isinstance(x, tuple)]
    once, each = ([p for p in pairs if ("{i}" in p[0]) == inside] for inside in (False, True))
    for i, lines in [(0, once), *((i, each) for i in range(depth))]:
        for theirs, ours, *steps in lines:
            whole = [_whole(cfg, kind, x).replace("{i}", str(i)) for x in ours.split()]
            out += _rules(theirs.replace("{i}", str(i)), whole, tuple(steps), own)
            if kind == "text" and ours in ("codec.head", "codec.head.weight") and cfg.text.tied:
                out.append(Tie(theirs.removesuffix(".weight") + ".weight", f"codecs.{kind}.stem.weight"))
    return out


def table_family(
    model_type: str, table: Table, names: Names | Callable[[BaseConfig], Names], **more: Any
) -> Family:
    """A family of one trunk from its two tables. more: other fields of Family."""
    assert table.codec is not None
    kind = table.codec.kind

    def rules(cfg: BaseConfig) -> Rules:
        return rules_of(cfg, kind, names(cfg) if callable(names) else names)

    return Family((model_type,), table.read, table.write, rules, **more)


def _whole(cfg: BaseConfig, kind: str, path: str) -> str:
    root, _, rest = path.partition(".")
    begins = {"trunk": f"trunks.{kind}", "block": f"trunks.{kind}.blocks.{{i}}", "codec": f"codecs.{kind}"}
    return f"{begins.get(root) or f'links.{cfg.links[0].name}'}.{rest}"


def _rules(
    theirs: str, ours: list[str], steps: tuple[Step, ...], own: Mapping[str, Shape]
) -> list[Rule | Tie]:
    out: list[Rule | Tie] = []
    for end in ENDS:
        whole = tuple(name + end for name in ours)
        if all(name in own for name in whole):
            cut = (Split(tuple(own[name][0] for name in whole)),) if len(whole) > 1 else ()
            out.append(Rule((theirs + end,), whole, (*steps, *cut)))
    if ours[0].endswith("norm") and f"{ours[0]}.bias" in own:
        out += [Tie(f"{theirs}.{old}", ours[0] + end) for old, end in OLD]
    return out


def parameters(cfg: BaseConfig) -> dict[str, Shape]:
    """Shapes of all parameters of a base (as if not quantized), by name; nothing is allocated."""
    first = {name: replace(t, blocks=t.blocks[:1]) for name, t in cfg.trunks.items()}
    with torch.device("meta"):
        whole = _shapes(BaseModel(replace(cfg, trunks=first, storage=None)))
    shapes = {name: shape for name, shape in whole.items() if ".blocks." not in name}
    for name, trunk in cfg.trunks.items():
        make = partial(_block, width=trunk.width, memory=trunk.memory)
        for i, block in enumerate(trunk.blocks):
            shapes |= {f"trunks.{name}.blocks.{i}.{part}": shape for part, shape in make(block).items()}
        if trunk.lambdas:
            shapes[f"trunks.{name}.lambdas"] = (len(trunk.blocks), 2)
    return shapes


@lru_cache(maxsize=256)
def _block(cfg: BlockConfig, width: int, memory: int | None) -> dict[str, Shape]:
    with torch.device("meta"):
        return _shapes(Block("", cfg, width, memory))


def _shapes(module: torch.nn.Module) -> dict[str, Shape]:
    return {name: tuple(p.shape) for name, p in module.named_parameters()}
