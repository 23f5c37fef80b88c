"""Soft prompts (Lester et al., 2104.08691): vectors learnt in the place of a prompt's embeddings. P virtual tokens, D width."""

import torch
from torch import Tensor, nn

from onebase.base.leads import SoftPrompt
from onebase.base.model import BaseModel
from onebase.config import config
from onebase.errors import ConfigError

KEY = "soft.vectors"


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
