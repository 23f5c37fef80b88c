"""Method prefix, prefix tuning (Li and Liang, 2101.00190): trained keys and values before the text, in every block. P virtual tokens,
G key heads, H head features.

The paper trains them through a small network, because randomly initialised keys train unstably. Here they start as the keys and values
that the base computes for tokens (its section 7.3), which needs no such network.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.base.virtual_tokens import Prefix
from onebase.config import config
from onebase.errors import ConfigError
from onebase.formats.peft.folder import PeftFolder, Target
from onebase.methods.method import SCRATCH, Learner, MethodPart, Peft, Start
from onebase.methods.soft import (
    PEFT_KEY,
    PEFT_PREFIX,
    SoftConfig,
    first,
    peft_keys,
    peft_size,
    peft_tensor,
    started,
    virtual_tokens,
)

RATE = 100.0
"""As that of soft prompts."""


@config
class PrefixConfig(SoftConfig):
    """`virtual`: number of keys and values before a text in each block; they count against the base's context."""


@torch.no_grad()
def inject(model: BaseModel, name: str, ids: Tensor) -> list[nn.Parameter]:
    """Attach a prefix that starts as the base's keys and values of the tokens `ids` [P]; returns its parameters."""
    cache = model.new_cache(1, len(ids))
    model.hidden(ids.to(model.device)[None], cache=cache)
    # Contiguous, as loaded from a file: another memory layout makes the optimizer round differently, and a resumed run must not.
    found = Prefix(
        *([_row(t) for t in each] for each in zip(*((x.k, x.v) for x in cache.layers), strict=True))
    )
    model.virtual[name] = found
    return list(found.parameters())


def _row(made_BGPH: Tensor) -> Tensor:
    """The first row's keys or values [P, G, H], copied."""
    return made_BGPH[0].transpose(0, 1).float().clone(memory_format=torch.contiguous_format)


def owns(key: str) -> bool:
    """See `tensors`."""
    return key.startswith("prefix.")


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """`prefix.N.k` and `prefix.N.v` [P, G, H] of block N; keys as in the cache, rotated to positions 0 .. P - 1."""
    if name not in model.virtual or not isinstance(found := model.virtual[name], Prefix):
        return {}
    made = (("k", found.keys), ("v", found.values))
    return {f"prefix.{i}.{kind}": t.detach() for kind, each in made for i, t in enumerate(each)}


def put(model: BaseModel, name: str, cfg: PrefixConfig, found: dict[str, Tensor]) -> None:
    """Attach saved keys and values. Raises ConfigError that names one that does not fit the base or the config."""
    shapes = [(cfg.virtual, b.attn.kv_heads, b.attn.head_dim) for b in model.trunk.cfg.blocks]
    wanted = {f"prefix.{i}.{kind}": shape for i, shape in enumerate(shapes) for kind in "kv"}
    bad = [
        k for k in sorted(wanted.keys() | found.keys()) if k not in found or found[k].shape != wanted.get(k)
    ]
    if bad:
        raise ConfigError(
            f"prefix tensor {bad[0]!r} does not fit this base", "use the base the adapter was made for"
        )
    n = range(len(shapes))
    model.virtual[name] = Prefix(
        [found[f"prefix.{i}.k"].clone() for i in n], [found[f"prefix.{i}.v"].clone() for i in n]
    )


def remove(model: BaseModel, name: str) -> None:
    """Remove the prefix."""
    if name in model.virtual and isinstance(model.virtual[name], Prefix):
        del model.virtual[name]


@contextmanager
def learn(start: Start) -> Iterator[Learner]:
    """A new prefix."""
    params = inject(start.base.model, SCRATCH, started(start))
    yield virtual_tokens(params, PrefixConfig(virtual=start.options.virtual), RATE)


def read_peft(folder: PeftFolder, target: Target) -> tuple[PrefixConfig, dict[str, Tensor]]:
    """`prompt_embeddings` [P, N x 2 x G x H]: keys and values of N blocks as in the cache, in PEFT and here. Raises ConfigError for a prefix
    that a network computes (PEFT's prefix_projection)."""
    cfg = PrefixConfig(virtual=peft_size(folder))
    folder.said.must("prefix_projection", False, False, "a network computes its keys and values")
    folder.done("a prefix", ("encoder_hidden_size", "init_weights"))
    blocks, heads, size = _alike(target.model)
    flat = peft_tensor(folder, (cfg.virtual, blocks * 2 * heads * size), "prefix")
    made_PNKGH = flat.view(cfg.virtual, blocks, 2, heads, size)
    both = enumerate("kv")
    return cfg, {
        f"prefix.{i}.{kind}": made_PNKGH[:, i, k].contiguous() for k, kind in both for i in range(blocks)
    }


def write_peft(
    cfg: PrefixConfig, found: Mapping[str, Tensor], target: Target
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The keys and values for PEFT."""
    blocks, heads, size = _alike(target.model)
    made = [torch.stack([found[f"prefix.{i}.{kind}"] for kind in "kv"], 1) for i in range(blocks)]
    keys = peft_keys(cfg, target.model, heads, heads * size)
    return keys | {"prefix_projection": False}, {PEFT_KEY: torch.stack(made, 1).flatten(1)}


def _alike(model: BaseModel) -> tuple[int, int, int]:
    """Blocks, key heads and features of a head. Raises ConfigError where blocks differ, which PEFT cannot represent."""
    attn = [b.attn for b in model.trunk.cfg.blocks]
    if len({(a.kv_heads, a.head_dim) for a in attn}) > 1:
        raise ConfigError(
            "this base's blocks differ in the size of their keys, PEFT's prefix has one size",
            "use a LoRA for this base",
        )
    return len(attn), attn[0].kv_heads, attn[0].head_dim


METHOD = first(
    "prefix",
    PrefixConfig,
    MethodPart(owns, tensors, put, remove),
    learn,
    Peft("PREFIX_TUNING", read_peft, write_peft, PEFT_PREFIX),
)
