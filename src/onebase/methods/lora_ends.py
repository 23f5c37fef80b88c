"""LoRA on the text codec: rows of a few tokens, a low-rank delta of the embedding or of the language-model head, or a replaced matrix.

V vocabulary, D width, R rank, K tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.errors import ConfigError
from onebase.methods.lora_config import EMBEDDING, LM_HEAD, LoraConfig
from onebase.modality.text.rows import EndDelta, TokenRows


class EmbeddingLora(EndDelta):
    """E + scaling * (B A)^T with A [R, V] and B [D, R]. A starts at zero, as in PEFT: rows of tokens that were never read do not change."""

    def __init__(self, vocab: int, width: int, rank: int, scaling: float, device: torch.device) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(rank, vocab, device=device))
        self.b = nn.Parameter(torch.zeros(width, rank, device=device))
        self.scaling = scaling

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Initialise B as PEFT does: normal with deviation 1."""
        self.b.copy_(torch.empty(self.b.shape).normal_(generator=generator))

    def stem(self, ids_BT: Tensor, scale: float | None = None) -> Tensor:
        low_BTR = F.embedding(ids_BT, self.a.T) * (self.scaling * (1.0 if scale is None else scale))
        return F.linear(low_BTR, self.b)

    def stem_added(self, weight_VD: Tensor, scale: float | None = None) -> Tensor:
        return weight_VD + (self.scaling * (self.b @ self.a)).T.to(weight_VD.dtype)


class HeadLora(EndDelta):
    """W + scaling * B A with A [R, D] and B [V, R]; B starts at zero. Losses that take the head's matrix get the whole sum."""

    def __init__(self, vocab: int, width: int, rank: int, scaling: float, device: torch.device) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(rank, width, device=device))
        self.b = nn.Parameter(torch.zeros(vocab, rank, device=device))
        self.scaling = scaling

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Initialise A as at other sites: uniform with bound 1 / sqrt(D)."""
        bound = self.a.shape[1] ** -0.5
        self.a.copy_(torch.empty(self.a.shape).uniform_(-bound, bound, generator=generator))

    def add_logits(self, z: Tensor, h: Tensor) -> Tensor:
        low = F.linear(h, self.a.to(h.dtype)) * self.scaling
        return z + F.linear(low, self.b.to(h.dtype)).to(z.dtype)

    def head_added(self, weight_VD: Tensor) -> Tensor:
        return weight_VD + (self.scaling * (self.b @ self.a)).to(weight_VD.dtype)


class Replaced(EndDelta):
    """A matrix that replaces the base's, stored as the difference `delta` [V, D]. It is loaded, never trained."""

    def __init__(self, end: str, delta_VD: Tensor) -> None:
        super().__init__()
        self.end, self.delta = end, nn.Parameter(delta_VD)

    def stem(self, ids_BT: Tensor, scale: float | None = None) -> Tensor | None:
        if self.end != EMBEDDING:
            return None
        return F.embedding(ids_BT, self.delta) * (1.0 if scale is None else scale)

    def add_logits(self, z: Tensor, h: Tensor) -> Tensor:
        return z + F.linear(h, self.delta.to(h.dtype)).to(z.dtype) if self.end == LM_HEAD else z

    def stem_added(self, weight_VD: Tensor, scale: float | None = None) -> Tensor:
        return weight_VD + self.delta.to(weight_VD.dtype) if self.end == EMBEDDING else weight_VD

    def head_added(self, weight_VD: Tensor) -> Tensor:
        return weight_VD + self.delta.to(weight_VD.dtype) if self.end == LM_HEAD else weight_VD


class Several(EndDelta):
    """Several deltas of one adapter."""

    def __init__(self, parts: list[EndDelta]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def each(self) -> list[EndDelta]:
        """The deltas in order."""
        return [p for p in self.parts if isinstance(p, EndDelta)]

    def stem(self, ids_BT: Tensor, scale: float | None = None) -> Tensor | None:
        found = [x for p in self.each() if (x := p.stem(ids_BT, scale)) is not None]
        return sum(found[1:], found[0]) if found else None

    def add_logits(self, z: Tensor, h: Tensor) -> Tensor:
        for p in self.each():
            z = p.add_logits(z, h)
        return z

    def stem_added(self, weight_VD: Tensor, scale: float | None = None) -> Tensor:
        for p in self.each():
            weight_VD = p.stem_added(weight_VD, scale)
        return weight_VD

    def head_added(self, weight_VD: Tensor) -> Tensor:
        for p in self.each():
            weight_VD = p.head_added(weight_VD)
        return weight_VD

    @property
    def rows(self) -> tuple[TokenRows, ...]:
        return tuple(r for p in self.each() for r in p.rows)


def inject_ends(
    model: BaseModel, name: str, cfg: LoraConfig, generator: torch.Generator
) -> list[nn.Parameter]:
    """Attach a config's deltas of the text codec under `name`; returns their parameters. Raises ConfigError for a matrix or a token that
    the base does not have."""
    parts = _parts(model, cfg, generator)
    if parts:
        model.text.deltas[name] = parts[0] if len(parts) == 1 else Several(parts)
    return [p for part in parts for p in part.parameters()]


def _parts(model: BaseModel, cfg: LoraConfig, generator: torch.Generator) -> list[EndDelta]:
    ends = (*cfg.ends, *cfg.replaced)
    if not (cfg.tokens or ends):
        return []
    if "text" not in model.cfg.codecs or (LM_HEAD in ends and not model.cfg.text.head):
        missing = "reads no text" if "text" not in model.cfg.codecs else "has no language-model head"
        raise ConfigError(f"LoRA on embedding or lm_head, but this base {missing}", "remove them from sites")
    vocab, width, device = model.cfg.text.vocab_size, model.text.width, model.device
    if cfg.tokens and max(cfg.tokens) >= vocab:
        raise ConfigError(
            f"LoRA token {max(cfg.tokens)} is not in this base", f"ids go from 0 to {vocab - 1}"
        )
    parts: list[EndDelta] = [TokenRows(cfg.tokens, width, device)] if cfg.tokens else []
    for end in cfg.ends:
        kind = EmbeddingLora if end == EMBEDDING else HeadLora
        delta = kind(vocab, width, cfg.rank_at(end), cfg.scaling_at(end), device)
        delta.reset(generator)
        parts.append(delta)
    return parts + [Replaced(end, torch.zeros(vocab, width, device=device)) for end in cfg.replaced]


def end_tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """An adapter's tensors of the text codec: `text.stem.rows` and `text.head.rows` [K, D] (in the config's order), `END.a`, `END.b`, `END.delta`."""
    if "text" not in model.cfg.codecs or name not in model.text.deltas:
        return {}
    found = model.text.deltas[name]
    assert isinstance(found, EndDelta)
    out: dict[str, Tensor] = {}
    for part in found.each() if isinstance(found, Several) else [found]:
        if isinstance(part, TokenRows):
            out["text.stem.rows"], out["text.head.rows"] = part.stem_KD.detach(), part.head_KD.detach()
        elif isinstance(part, Replaced):
            out[f"{part.end}.delta"] = part.delta.detach()
        elif isinstance(part, EmbeddingLora | HeadLora):
            end = EMBEDDING if isinstance(part, EmbeddingLora) else LM_HEAD
            out[f"{end}.a"], out[f"{end}.b"] = part.a.detach(), part.b.detach()
    return out
