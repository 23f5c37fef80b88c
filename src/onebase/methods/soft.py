"""Method soft, soft prompts (Lester et al., 2104.08691): trained vectors before the embeddings of a text. P virtual tokens, D width."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.base.virtual_tokens import SoftPrompt
from onebase.config import config
from onebase.errors import ArtifactError, ConfigError, UserError
from onebase.formats.peft.folder import PeftFolder, Target
from onebase.methods.method import SCRATCH, Learner, Method, MethodPart, Peft, Start, option
from onebase.model.proj import AdapterRouting

KEY, PEFT_KEY = "soft.vectors", "prompt_embeddings"
PEFT_PREFIX = "base_model."
"""PEFT's prefix of module names here: no tuner wraps the model."""
IDLE = ("num_attention_heads", "num_layers", "token_dim")
"""Keys of PEFT's configs of virtual tokens that follow from the shape of their tensor."""
STARTED = ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_kwargs", "tokenizer_name_or_path")
"""Keys about the initialisation of a soft prompt."""
RATE = 300.0
"""Learning rate of a soft prompt as a multiple of the others, times the RMS of its initial values, as with Adafactor (0.3 in the paper):
embeddings are near 0.02 in one base and near 1 in another."""


@config
class SoftConfig:
    """`virtual`: number of vectors before a text; they count against the base's context."""

    virtual: int = option(16, "number of virtual tokens before a text")

    def __post_init__(self) -> None:
        if self.virtual < 1:
            raise ConfigError(f"'virtual' is {self.virtual}", "give at least 1")


@config
class VirtualOptions(SoftConfig):
    """Options of methods with virtual tokens."""

    soft_text: str | None = option(None, "text whose tokens initialise them (default: random tokens)")


def inject(model: BaseModel, name: str, ids: Tensor) -> list[nn.Parameter]:
    """Attach a soft prompt that starts as the embeddings of the tokens `ids` [P]; returns its parameters."""
    with torch.no_grad():
        vectors_PD = model.text.stem.tokens(ids.to(model.device)[None])[0].float()
    found = SoftPrompt(vectors_PD)
    model.virtual[name] = found
    return list(found.parameters())


def owns(key: str) -> bool:
    """See `tensors`."""
    return key == KEY


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """`soft.vectors` [P, D]."""
    if name not in model.virtual or not isinstance(found := model.virtual[name], SoftPrompt):
        return {}
    return {KEY: found.vectors_PD.detach()}


def put(model: BaseModel, name: str, cfg: SoftConfig, found: dict[str, Tensor]) -> None:
    """Attach saved vectors. Raises ConfigError where they do not fit the base or the config."""
    vectors_PD, wanted = found.get(KEY), (cfg.virtual, model.text.width)
    if vectors_PD is None or vectors_PD.shape != wanted:
        has = "missing" if vectors_PD is None else f"of shape {list(vectors_PD.shape)}"
        raise ConfigError(
            f"the soft prompt's vectors are {has}, not {list(wanted)}", "use the adapter as it was saved"
        )
    model.virtual[name] = SoftPrompt(vectors_PD.clone())


def remove(model: BaseModel, name: str) -> None:
    """Remove the soft prompt."""
    if name in model.virtual and isinstance(model.virtual[name], SoftPrompt):
        del model.virtual[name]


def started(start: Start) -> Tensor:
    """The tokens [P] that initialise virtual ones: of the given text (repeated or cut), or drawn by seed."""
    o, base = start.options, start.base
    tokenizer = base.codec.tokenizer
    if o.soft_text is None:
        names = min(tokenizer.vocab_size, base.model.cfg.text.vocab_size)
        return torch.randint(names, (o.virtual,), generator=torch.Generator().manual_seed(start.seed))
    ids = tokenizer.encode(o.soft_text)
    if not ids:
        raise UserError("'soft_text' has no token", "give a text that is not empty, or remove the option")
    return torch.tensor([ids[i % len(ids)] for i in range(o.virtual)])


def virtual_tokens(params: list[nn.Parameter], config: Any, rate: float) -> Learner:
    """Virtual tokens as a learner; their learning rate is scaled by the RMS of their initial values."""
    size = torch.cat([p.detach().flatten() for p in params]).square().mean().sqrt()
    rate *= float(size.clamp(min=1e-6))
    return Learner(params, AdapterRouting.all_rows(SCRATCH), config, before=config.virtual, rate=rate)


@contextmanager
def learn(start: Start) -> Iterator[Learner]:
    """A new soft prompt."""
    params = inject(start.base.model, SCRATCH, started(start))
    yield virtual_tokens(params, SoftConfig(virtual=start.options.virtual), RATE)


def first(name: str, config: type[Any], part: MethodPart, learner: Any, peft: Peft | str) -> Method:
    """A method with virtual tokens before the text."""
    return Method(
        name=name,
        options=VirtualOptions,
        config=config,
        part=part,
        learn=learner,
        virtual=lambda options: options.virtual,
        text=True,
        alone="come first",
        merge="virtual tokens are not weights of the base",
        peft=peft,
    )


def peft_size(folder: PeftFolder) -> int:
    """The number of virtual tokens in a PEFT config; its other keys are ignored."""
    folder.said.must("num_transformer_submodules", 1, 1, "it is for an encoder and a decoder")
    for key in IDLE:
        folder.said.has(key)
    return folder.said.size("num_virtual_tokens")


def peft_keys(cfg: SoftConfig, model: BaseModel, heads: int, width: int) -> dict[str, Any]:
    """The common keys of PEFT's configs of virtual tokens."""
    return {
        "task_type": "CAUSAL_LM" if model.cfg.text.head else "FEATURE_EXTRACTION",
        "num_virtual_tokens": cfg.virtual,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_attention_heads": heads,
        "num_layers": len(model.trunk.cfg.blocks),
    }


def peft_tensor(folder: PeftFolder, wanted: tuple[int, int], what: str) -> Tensor:
    """The one tensor of PEFT's virtual tokens, fp32. Raises ArtifactError where it is not the one that this base needs."""
    found = folder.own
    if (
        set(found) != {PEFT_KEY}
        or folder.matrices
        or found[PEFT_KEY].shape != wanted
        or not found[PEFT_KEY].is_floating_point()
    ):
        shapes = {k: list(t.shape) for k, t in found.items()}
        raise ArtifactError(
            f"{folder.where} has {shapes}, a {what} for this base is {PEFT_KEY} {list(wanted)}",
            f"give an adapter of this base with only a {what}",
        )
    return found[PEFT_KEY].float().clone()


def read_peft(folder: PeftFolder, target: Target) -> tuple[SoftConfig, dict[str, Tensor]]:
    """`prompt_embeddings` [P, D], placed before the embeddings of the text and counted in positions, in PEFT and here."""
    cfg = SoftConfig(virtual=peft_size(folder))
    folder.done("a soft prompt", STARTED)
    _unscaled(target.model)
    return cfg, {KEY: peft_tensor(folder, (cfg.virtual, target.model.text.width), "soft prompt")}


def write_peft(
    cfg: SoftConfig, found: Mapping[str, Tensor], target: Target
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The vectors for PEFT."""
    _unscaled(target.model)
    heads = target.model.trunk.cfg.blocks[0].attn.heads
    keys = peft_keys(cfg, target.model, heads, target.model.text.width)
    return keys | {"prompt_tuning_init": "RANDOM"}, {PEFT_KEY: found[KEY]}


def _unscaled(model: BaseModel) -> None:
    if model.cfg.text.scale is not None:
        raise ConfigError(
            "this base scales its embeddings, and whether PEFT also scales soft prompts depends on its version",
            "use a LoRA for this base",
        )


METHOD = first(
    "soft",
    SoftConfig,
    MethodPart(owns, tensors, put, remove),
    learn,
    Peft("PROMPT_TUNING", read_peft, write_peft, PEFT_PREFIX),
)
