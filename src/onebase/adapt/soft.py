"""Soft prompts (Lester et al., 2104.08691): vectors learnt in the place of a prompt's embeddings. P virtual tokens, D width."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from onebase.adapt.method import SCRATCH, Learner, Method, MethodOptions, Part
from onebase.base.folder import LoadedBase
from onebase.base.leads import SoftPrompt
from onebase.base.model import BaseModel
from onebase.config import config
from onebase.errors import ConfigError, UserError
from onebase.model.proj import Active

KEY = "soft.vectors"
RATE = 300.0
"""Rate of a soft prompt as a multiple of all else's, times the root mean square of what it starts from, as Adafactor's rate (0.3
in the paper) is: embeddings are near 0.02 in one base and near 1 in another."""


@config
class SoftConfig:
    """`virtual`: how many vectors stand before a text; they count against the base's context."""

    virtual: int = 16

    def __post_init__(self) -> None:
        check_virtual(self.virtual)


def check_virtual(virtual: int) -> None:
    """Raises ConfigError for none."""
    if virtual < 1:
        raise ConfigError(f"'virtual' is {virtual}", "give at least 1")


def inject(model: BaseModel, name: str, ids: Tensor) -> list[nn.Parameter]:
    """Attach a soft prompt that starts as the embeddings of the tokens `ids` [P]; returns its parameters."""
    with torch.no_grad():
        vectors_PD = model.text.stem.tokens(ids.to(model.device)[None])[0].float()
    lead = SoftPrompt(vectors_PD)
    model.leads[name] = lead
    return list(lead.parameters())


def owns(key: str) -> bool:
    """See `tensors`."""
    return key == KEY


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """`soft.vectors` [P, D]."""
    if name not in model.leads or not isinstance(lead := model.leads[name], SoftPrompt):
        return {}
    return {KEY: lead.vectors_PD.detach()}


def put(model: BaseModel, name: str, cfg: SoftConfig, found: dict[str, Tensor]) -> None:
    """Attach saved vectors. Raises ConfigError where they do not fit the base or the config."""
    vectors_PD, wanted = found.get(KEY), (cfg.virtual, model.text.width)
    if vectors_PD is None or vectors_PD.shape != wanted:
        has = "missing" if vectors_PD is None else f"of shape {list(vectors_PD.shape)}"
        raise ConfigError(
            f"the soft prompt's vectors are {has}, not {list(wanted)}", "use the adapter as it was saved"
        )
    model.leads[name] = SoftPrompt(vectors_PD.clone())


def remove(model: BaseModel, name: str) -> None:
    """Take it off."""
    if name in model.leads and isinstance(model.leads[name], SoftPrompt):
        del model.leads[name]


def started(base: LoadedBase, options: MethodOptions) -> Tensor:
    """The tokens [P] that virtual ones start from: of the given text (again and again, or its first), or drawn by seed."""
    o, tokenizer = options, base.codec.tokenizer
    if o.soft_text is None:
        names = min(tokenizer.vocab_size, base.model.cfg.text.vocab_size)
        return torch.randint(names, (o.virtual,), generator=torch.Generator().manual_seed(o.seed))
    ids = tokenizer.encode(o.soft_text)
    if not ids:
        raise UserError("'soft_text' has no token", "give some text, or leave it out")
    return torch.tensor([ids[i % len(ids)] for i in range(o.virtual)])


def virtual_tokens(
    params: list[nn.Parameter], fields: dict[str, Any], options: MethodOptions, rate: float
) -> Learner:
    """What stands before each text, to learn: its rate goes by the size of the numbers that it starts from."""
    size = torch.cat([p.detach().flatten() for p in params]).square().mean().sqrt()
    active = Active.all_rows(SCRATCH)
    return Learner(params, active, fields, before=options.virtual, rate=rate * float(size.clamp(min=1e-6)))


@contextmanager
def learn(base: LoadedBase, options: MethodOptions, tokens: tuple[int, ...], trunk: str) -> Iterator[Learner]:
    """A fresh soft prompt."""
    params = inject(base.model, SCRATCH, started(base, options))
    yield virtual_tokens(params, {"soft": SoftConfig(virtual=options.virtual)}, options, RATE)


def first(name: str, part: Part, learner: Any) -> Method:
    """A method whose virtual tokens stand before the text."""
    return Method(
        name=name,
        part=part,
        learn=learner,
        virtual=lambda options: options.virtual,
        alone="stand first",
        unmergeable=f"a {name} adapter stands before the text: it has nothing that could go into the base's weights",
    )


METHOD = first("soft", Part(owns, tensors, put, remove), learn)
