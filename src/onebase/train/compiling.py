"""torch.compile, block by block: identical blocks share one compilation, and nothing outside them needs to trace."""

from onebase.base.model import BaseModel


def compile_blocks(model: BaseModel) -> None:
    """Compile every block of every trunk in place, for fixed shapes. The first step takes the compile time."""
    for name in model.trunks:
        for block in model.trunks[name].blocks:  # type: ignore[union-attr]
            block.compile(dynamic=False)
    model.compiled = True
