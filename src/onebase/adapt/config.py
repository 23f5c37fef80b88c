"""What an adapter is, as config: its method, its task, and which base it was made for."""

from dataclasses import field
from typing import Any

from onebase.adapt.lora import LoraConfig
from onebase.adapt.methods import METHODS
from onebase.adapt.prefix import PrefixConfig
from onebase.adapt.prompt import PromptConfig
from onebase.adapt.soft import SoftConfig
from onebase.base.head import HeadConfig
from onebase.codec.text.pooling import EmbeddingConfig
from onebase.config import config
from onebase.errors import ConfigError
from onebase.objective.preference import PreferConfig

OWN = ("lora", "head", "prompt", "soft", "prefix")
"""Methods whose part has a field of its own in `AdapterConfig`."""


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

    def part(self, method: str) -> Any:
        """The config of what a method put beside the base's weights; None where it put nothing."""
        return getattr(self, method) if method in OWN else self.plugins.get(method)
