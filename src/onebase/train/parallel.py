"""Distributed training: ranks, sums over ranks, the lock on a folder, and FSDP2 and torch.compile applied from outside the model.

`torchrun` sets the environment that is read here; without it everything below is a no-op.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from onebase.artifact.owned import owned
from onebase.base.model import BaseModel
from onebase.errors import ArtifactError


@dataclass(frozen=True)
class Parallel:
    """This process in its group: `rank` of `world`, on `device`."""

    rank: int
    world: int
    device: torch.device

    @staticmethod
    def start(device: torch.device) -> Parallel:
        """Join the process group of torchrun, or run as a single process. gloo on CPUs, nccl on GPUs."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return Parallel(0, 1, device)
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return Parallel(dist.get_rank(), dist.get_world_size(), device)

    @property
    def main(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def shard(self, model: BaseModel) -> None:
        """Shard parameters, gradients and optimizer state over the ranks (FSDP2): each block is a unit, the rest another."""
        if self.world == 1:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        for module in model.modules():
            for name, p in list(module.named_parameters(recurse=False)):
                if p.ndim == 0:  # FSDP2 takes no scalars
                    setattr(module, name, nn.Parameter(p.detach()[None], p.requires_grad))
        for name in model.trunks:
            for block in model.trunks[name].blocks:  # type: ignore[union-attr]
                fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)

    def sync_gradients(self, model: nn.Module, on: bool) -> None:
        """Set whether the next backward reduces gradients over ranks: only the last micro-batch of a step needs it."""
        if self.world > 1:
            model.set_requires_gradient_sync(on)  # type: ignore[operator]

    def reshard(self, model: nn.Module) -> None:
        """Free parameters that a forward without a backward has gathered (evaluation during training)."""
        if self.world > 1:
            model.reshard()  # type: ignore[operator]

    def sum(self, values: list[float]) -> list[float]:
        """Sum each number over the ranks, in fp64."""
        if self.world == 1:
            return values
        t = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(t)
        return [float(v) for v in t.tolist()]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return self.sum([float(flag)])[0] > 0

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    def stop(self) -> None:
        """Leave the group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


def whole_state(model: nn.Module, *, trainable: bool = False) -> dict[str, Tensor]:
    """All parameters (or only the trainable ones) as whole CPU tensors. A collective: every rank must call it."""
    out: dict[str, Tensor] = {}
    for name, p in _chosen(model, trainable):
        out[name] = whole(p).detach().cpu()
    return out


def _chosen(model: nn.Module, trainable: bool) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad or not trainable]


@torch.no_grad()
def load_whole_state(model: nn.Module, tensors: Mapping[str, Tensor], *, trainable: bool = False) -> None:
    """Copy whole tensors into all parameters (their shards), or into the trainable ones. Raises ArtifactError naming a tensor that does not fit."""
    params = dict(_chosen(model, trainable))
    for name in sorted(params.keys() ^ tensors.keys()):
        side = "lacks" if name in params else "has an unknown"
        raise ArtifactError(
            f"the checkpoint {side} tensor {name!r}", "resume with the recipe of the checkpoint"
        )
    for name, p in params.items():
        t = tensors[name]
        if t.shape != p.shape and not t.numel() == p.numel() == 1:  # sharded runs hold scalars as [1]
            raise ArtifactError(
                f"tensor {name!r} has shape {tuple(t.shape)}, this model needs {tuple(p.shape)}",
                "resume with the recipe of the checkpoint",
            )
        p.copy_(split_like(t, p))


def whole(t: Tensor) -> Tensor:
    """The whole tensor. A collective if it is sharded: every rank must call it."""
    if not is_split(t):
        return t
    full: Tensor = t.full_tensor()  # type: ignore[attr-defined]
    return full


def split_like(t: Tensor, like: Tensor) -> Tensor:
    """A whole tensor sharded like another one; if that is not sharded, only moved to its device."""
    t = t.to(like.device).reshape(like.shape)
    if not is_split(like):
        return t
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    return distribute_tensor(t, sharded.device_mesh, sharded.placements)


def is_split(t: Tensor) -> bool:
    """Whether a tensor is sharded over processes (a DTensor). The module of DTensor takes a second to import, and only sharded runs import it:
    before that there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(t, module.DTensor)


@contextlib.contextmanager
def owning(folder: Path | None, par: Parallel) -> Iterator[None]:
    """Lock `folder` inside the block, so that only this run writes it (None: it writes nothing). Rank 0 holds the lock for all ranks.

    If another run has the lock, raises ArtifactError on every rank: a rank that continued would wait for the others forever.
    """
    with contextlib.ExitStack() as stack:
        refused: ArtifactError | None = None
        if folder is not None and par.main:
            try:
                stack.enter_context(owned(folder))
            except ArtifactError as e:
                refused = e
        if folder is not None and par.any(refused is not None):
            raise refused or ArtifactError(
                f"{folder} is being written by another run", "see the error of rank 0"
            )
        yield


def compile_blocks(model: BaseModel) -> None:
    """Compile every block of every trunk in place, for fixed shapes: identical blocks share one compilation, and nothing outside them is traced.
    The first step includes the compile time."""
    for name in model.trunks:
        for block in model.trunks[name].blocks:  # type: ignore[union-attr]
            block.compile(dynamic=False)
    model.compiled = True
