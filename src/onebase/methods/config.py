"""What an adapter is, as config: its method, its task, and which base it was made for."""

from dataclasses import field, fields
from typing import Any

from onebase.base.head import HeadConfig
from onebase.codec.text.pooling import EmbeddingConfig
from onebase.config import config, from_dict
from onebase.config_plain import to_dict
from onebase.errors import ConfigError
from onebase.methods.lora_config import LoraConfig
from onebase.methods.prefix import PrefixConfig
from onebase.methods.prompt import PromptConfig
from onebase.methods.soft import SoftConfig
from onebase.methods.table import METHODS, OURS
from onebase.objective.preference import PreferConfig


@config
class BoundTo:
    """Hashes of the base that the adapter was made for. Weights and tokenizer must match; the template only for chat. A base that reads
    no text has the first alone."""

    fingerprint: str
    tokenizer: str = ""
    template: str = ""


@config
class AdapterConfig:
    """`head` for classification by a head, `lora` for low-rank deltas, `prompt` for prompting alone, `soft` and `prefix` for what is learnt
    before a text, `embedding` how a text becomes a vector with it, `prefer` the loss that answers were compared by. `chats`: what it learnt from
    went through the chat template (of task chat this is known). `plugins`: configs of methods that come from elsewhere, by method."""

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
                    f"method {name!r} is not known here",
                    f"methods: {', '.join(METHODS)}; install the package that brings {name}",
                )
        for name in self.plugins:
            self.part(name)  # says what is wrong with it

    def part(self, method: str) -> Any:
        """The config of what a method put beside the base's weights; None where it put nothing."""
        if method in OWN:
            return getattr(self, method)
        given = self.plugins.get(method)
        return None if given is None else from_dict(METHODS[method].kept, given, f"config of {method}")


OWN = tuple(f.name for f in fields(AdapterConfig) if f.name in OURS)
"""Methods whose part has a field of its own in `AdapterConfig`."""


def part_field(method: str, part: Any) -> dict[str, Any]:
    """The field of `AdapterConfig` that says what a method put beside the base's weights; none where it put nothing."""
    if part is None:
        return {}
    return {method: part} if method in OWN else {"plugins": {method: to_dict(part)}}
