"""The config of an adapter: its method, its task, and the base it was made for."""

from dataclasses import field, fields
from typing import Any

from onebase.base.head import HeadConfig
from onebase.config import config, from_dict
from onebase.config_plain import to_dict
from onebase.errors import ConfigError
from onebase.methods.lora_config import LoraConfig
from onebase.methods.prefix import PrefixConfig
from onebase.methods.prompt import PromptConfig
from onebase.methods.soft import SoftConfig
from onebase.methods.table import METHODS, OURS
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.objective.preference import PreferConfig


@config
class BoundTo:
    """Hashes of the adapter's base. Weights and tokenizer must match; the template only for chat. A base that reads no text has only the
    first."""

    fingerprint: str
    tokenizer: str = ""
    template: str = ""


@config
class AdapterConfig:
    """`head`: a head on hidden states. `lora`: low-rank deltas. `prompt`: a saved prompt. `soft`, `prefix`: virtual tokens. `embedding`: how
    it turns a text into a vector. `prefer`: the loss on preferences. `chats`: the training data used the chat template (implied by task
    chat). `plugins`: configs of methods of other packages, by method."""

    method: str
    task: str
    base: BoundTo
    lora: LoraConfig | None = None
    head: HeadConfig | None = None
    prompt: PromptConfig | None = None
    soft: SoftConfig | None = None
    prefix: PrefixConfig | None = None
    embedding: EmbeddingConfig | None = None
    prefer: PreferConfig | None = None
    chats: bool = False
    plugins: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.method, *self.plugins):
            if name not in METHODS:
                raise ConfigError(
                    f"method {name!r} is not installed",
                    f"methods: {', '.join(METHODS)}; install the package that provides {name}",
                )
        for name in self.plugins:
            self.part(name)  # raises if it is not valid

    def part(self, method: str) -> Any:
        """The config of a method's weights in this adapter; None if it has none."""
        if method in OWN:
            return getattr(self, method)
        given = self.plugins.get(method)
        return None if given is None else from_dict(METHODS[method].kept, given, f"config of {method}")


OWN = tuple(f.name for f in fields(AdapterConfig) if f.name in OURS)
"""Methods whose config has a field of its own in `AdapterConfig`."""


def part_field(method: str, part: Any) -> dict[str, Any]:
    """The field of `AdapterConfig` with the config of a method's weights; empty if it has none."""
    if part is None:
        return {}
    return {method: part} if method in OWN else {"plugins": {method: to_dict(part)}}
