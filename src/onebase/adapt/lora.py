"""LoRA by injection (Hu et al., 2106.09685): a low-rank delta at chosen sites, and the rows of chosen tokens. R rank."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.codec.text.rows import TokenRows
from onebase.config import config
from onebase.errors import ConfigError, UserError
from onebase.model.proj import Proj


@config
class LoraConfig:
    """`sites` are the last words of site names (`q` means every attention's q), every projection when empty; scaling is
    alpha / rank. `tokens` are ids whose rows in the text codec's ends are learnt too: a base may never have seen them."""

    rank: int = 8
    alpha: float = 16.0
    sites: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"LoRA rank is {self.rank}", "give at least 1")
        if len(set(self.tokens)) < len(self.tokens) or any(i < 0 for i in self.tokens):
            raise ConfigError(f"LoRA tokens are {list(self.tokens)}", "give different ids, from 0 on")


class Lora(nn.Module):
    """x -> scaling * x A^T B^T. B starts at zero, so a fresh adapter changes nothing."""

    def __init__(self, d_in: int, d_out: int, cfg: LoraConfig, device: torch.device | None = None) -> None:
        super().__init__()
        self.a_RI = nn.Parameter(torch.empty(cfg.rank, d_in, device=device))
        self.b_OR = nn.Parameter(torch.zeros(d_out, cfg.rank, device=device))
        self.scaling = cfg.alpha / cfg.rank

    def reset(self, generator: torch.Generator) -> None:
        """A as PEFT starts it: uniform with bound 1/sqrt(d_in) (Kaiming, a = sqrt 5)."""
        bound = 1 / math.sqrt(self.a_RI.shape[1])
        with torch.no_grad():
            self.a_RI.copy_(torch.empty(self.a_RI.shape).uniform_(-bound, bound, generator=generator))
            self.b_OR.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.a_RI.to(x.dtype)), self.b_OR.to(x.dtype)) * self.scaling

    def delta_OI(self) -> Tensor:
        """The full matrix that this adapter adds to the projection's weight."""
        return self.scaling * (self.b_OR @ self.a_RI)


def chosen_sites(model: BaseModel, cfg: LoraConfig) -> dict[str, Proj]:
    """The projections a config names. Raises ConfigError for a word that names none."""
    sites = model.sites()
    for word in cfg.sites:
        if not any(_named(site, word) for site in sites):
            known = sorted({s.rsplit(".", 1)[-1] for s in sites})
            raise ConfigError(
                f"LoRA site {word!r} is not in this base", f"known: {', '.join(known)}, or a whole site name"
            )
    return {s: p for s, p in sites.items() if not cfg.sites or any(_named(s, w) for w in cfg.sites)}


def _named(site: str, word: str) -> bool:
    return site == word or site.endswith("." + word)


def inject(model: BaseModel, name: str, cfg: LoraConfig, seed: int = 0) -> list[nn.Parameter]:
    """Attach a fresh LoRA called `name` at every chosen site, and at the chosen tokens' rows; returns its parameters."""
    vocab = model.cfg.text.vocab_size
    if cfg.tokens and max(cfg.tokens) >= vocab:
        raise ConfigError(
            f"LoRA token {max(cfg.tokens)} is not in this base", f"ids go from 0 to {vocab - 1}"
        )
    generator = torch.Generator().manual_seed(seed)
    out: list[nn.Parameter] = []
    for proj in chosen_sites(model, cfg).values():
        lora = Lora(proj.d_in, proj.d_out, cfg, proj.device)
        lora.reset(generator)
        proj.deltas[name] = lora
        out += list(lora.parameters())
    if cfg.tokens:
        rows = TokenRows(cfg.tokens, model.text.width, model.device)
        model.text.deltas[name] = rows
        out += list(rows.parameters())
    return out


def remove(model: BaseModel, name: str) -> None:
    """Take the adapter off everywhere; the base is then bitwise what it was."""
    for proj in model.sites().values():
        if name in proj.deltas:
            del proj.deltas[name]
    if name in model.text.deltas:
        del model.text.deltas[name]


@torch.no_grad()
def merge(model: BaseModel, name: str) -> None:
    """Add the adapter into the weights and take it off. The base is then another base, with another fingerprint.

    Tied ends are untied first where the adapter has rows of tokens: one matrix cannot hold two deltas. Raises UserError for a base in
    few bits.
    """
    if (storage := model.cfg.storage) is not None:
        raise UserError(
            f"the base is kept in {storage.bits} bits: what the adapter adds would be rounded away",
            "serve the adapter beside the base, or merge first and quantize the result",
        )
    for proj in model.sites().values():
        if name in proj.deltas:
            lora = proj.deltas[name]
            assert isinstance(lora, Lora)
            assert proj.weight is not None
            proj.weight.add_(lora.delta_OI().to(proj.weight.dtype))
            del proj.deltas[name]
    if name in model.text.deltas:
        model.untie()
        model.text.merge(name)


def owns(key: str) -> bool:
    """See `tensors`."""
    return key.endswith((".a", ".b", ".rows"))


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """The adapter's tensors: `site.a` and `site.b`, and of tokens `text.stem.rows` and `text.head.rows` (in the config's order)."""
    out: dict[str, Tensor] = {}
    for site, proj in model.sites().items():
        if name in proj.deltas:
            lora = proj.deltas[name]
            assert isinstance(lora, Lora)
            out[f"{site}.a"], out[f"{site}.b"] = lora.a_RI.detach(), lora.b_OR.detach()
    if name in model.text.deltas:
        rows = model.text.deltas[name]
        assert isinstance(rows, TokenRows)
        out["text.stem.rows"], out["text.head.rows"] = rows.stem_KD.detach(), rows.head_KD.detach()
    return out


@torch.no_grad()
def put(model: BaseModel, name: str, cfg: LoraConfig, found: dict[str, Tensor]) -> None:
    """Attach saved tensors; all sites of the config must be there, and no others. Raises ConfigError naming the site."""
    inject(model, name, cfg)
    wanted = tensors(model, name)
    odd = sorted(wanted.keys() ^ found.keys())
    if odd or any(wanted[k].shape != found[k].shape for k in wanted):
        bad = odd[0] if odd else next(k for k in wanted if wanted[k].shape != found[k].shape)
        remove(model, name)
        raise ConfigError(
            f"LoRA tensor {bad!r} does not fit this base", "use the base the adapter was made for"
        )
    for key, t in wanted.items():
        t.copy_(found[key])


def count(model: BaseModel, names: Iterable[str]) -> int:
    """Learned numbers of the named adapters."""
    return sum(t.numel() for n in names for t in tensors(model, n).values())
