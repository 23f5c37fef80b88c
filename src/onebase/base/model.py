"""A base as a module: trunks and codec ends composed as its config says. B batch, T time, D width, V vocabulary."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextEnds
from onebase.errors import ConfigError
from onebase.model.cache import Cache
from onebase.model.config import StorageConfig
from onebase.model.init import init_trunk
from onebase.model.mask import Cols, Mask
from onebase.model.proj import Active, Proj
from onebase.model.trunk import Out, Trunk

R = TypeVar("R")


class BaseModel(nn.Module):
    """Trunks and codec ends. Parameters keep their stored dtype; `compute_dtype` is what activations run in."""

    def __init__(self, cfg: BaseConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.compute_dtype = torch.float32
        self.compiled = False  # set by train.compiling: the loss may then compile its part too
        self.trunks = nn.ModuleDict({name: Trunk(name, t) for name, t in cfg.trunks.items()})
        self.codecs = nn.ModuleDict(
            {name: TextEnds(c, cfg.trunks[name].width) for name, c in cfg.codecs.items()}
        )
        if cfg.storage is not None:
            self._keep_in(cfg.storage, take=False)
        self.heads = nn.ModuleDict()  # what adaptation puts on the hidden states; empty in a plain base

    @property
    def trunk(self) -> Trunk:
        """The text trunk."""
        trunk = self.trunks["text"]
        assert isinstance(trunk, Trunk)
        return trunk

    @property
    def text(self) -> TextEnds:
        """The learned ends of the text codec."""
        ends = self.codecs["text"]
        assert isinstance(ends, TextEnds)
        return ends

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def reset(self, seed: int) -> None:
        """Draw all starting weights from `seed` (on the CPU, so that a seed means the same on every device)."""
        assert self.cfg.storage is None, "a quantised base has no starting weights"
        generator = torch.Generator().manual_seed(seed)
        for name in sorted(self.trunks):
            trunk = self.trunks[name]
            assert isinstance(trunk, Trunk)
            init_trunk(trunk, generator)
        for name in sorted(self.codecs):
            ends = self.codecs[name]
            assert isinstance(ends, TextEnds)
            ends.reset(generator)

    def sites(self) -> dict[str, Proj]:
        """Every projection of every trunk by site name."""
        return {m.site: m for m in self.modules() if isinstance(m, Proj)}

    def untie(self) -> None:
        """Give the text head a matrix of its own, equal to the stem's (nothing to do when it has one): another config."""
        self.text.untie()
        self.cfg = replace(self.cfg, codecs=self.cfg.codecs | {"text": self.text.cfg})

    def quantise(self, storage: StorageConfig) -> None:
        """Round the matrices of all projections, and of the head, into few bits: another config, other weights.

        Raises ConfigError when this was done before, or when a matrix does not divide into groups.
        """
        if self.cfg.storage is not None:
            raise ConfigError(
                f"this base is kept in {self.cfg.storage.bits} bits", "start from the one it was made of"
            )
        self._keep_in(storage, take=True)
        self.cfg = replace(self.cfg, storage=storage)

    def _keep_in(self, storage: StorageConfig, *, take: bool) -> None:
        for proj in self.sites().values():
            proj.keep_in(storage, take=take)
        self.text.keep_in(storage, take=take)

    def new_cache(self, batch: int, slots: int) -> Cache:
        """An empty key-value cache for the text trunk."""
        return Cache(self.trunk.cfg, batch, slots, self.device, self.compute_dtype)

    def hidden(
        self,
        ids_BT: Tensor,
        cols: Cols | None = None,
        mask: Mask | None = None,
        *,
        cache: Cache | None = None,
        active: Active | None = None,
        taps: Sequence[int] = (),
    ) -> Out:
        """Hidden states of text; without columns every row is one document from position 0."""
        if cols is None:
            cols = Cols.simple(ids_BT.shape[0], ids_BT.shape[1], ids_BT.device)
        x_BTD = self.text.embed(ids_BT, cols.pos, self.compute_dtype, active, cols.doc)
        out: Out = self.trunk(x_BTD, cols, mask, cache=cache, active=active, taps=taps)
        return out

    def logits(self, ids_BT: Tensor, active: Active | None = None) -> Tensor:
        """fp32 logits [B, T, V] of whole rows."""
        return self.text.logits(self.hidden(ids_BT, active=active).hidden, active)

    def forward(self, work: Callable[["BaseModel"], R]) -> R:
        """Run `work` on this model from inside a module call.

        Sharded training gathers parameters around `forward`; whatever touches weights outside a trunk (the loss reads the
        head's matrix) must therefore run within it.
        """
        return work(self)

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters by the kind that decides their optimizer: matrix, embed, head, other.

        An adapter's rows of tokens go with the end they belong to.
        """
        found: dict[str, list[tuple[str, nn.Parameter]]] = {
            "matrix": [],
            "embed": [],
            "head": [],
            "other": [],
        }
        for name, p in self.named_parameters():
            if not p.requires_grad:
                continue
            if name.endswith((".stem.weight", ".stem_KD")):
                found["embed"].append((name, p))
            elif name.endswith((".head.weight", ".head_KD")):
                found["head"].append((name, p))
            elif (
                p.ndim == 2
                and name.startswith("trunks.")
                and not name.endswith("lambdas")
                and ".deltas." not in name
            ):
                found["matrix"].append((name, p))
            else:
                found["other"].append((name, p))
        return found
