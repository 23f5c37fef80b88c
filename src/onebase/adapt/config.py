"""What an adapter is, as config: its method, its task, and which base it was made for."""

from typing import Literal

from onebase.adapt.head import HeadConfig
from onebase.adapt.lora import LoraConfig
from onebase.adapt.prefix import PrefixConfig
from onebase.adapt.prompt import PromptConfig
from onebase.adapt.soft import SoftConfig
from onebase.codec.text.pooling import EmbeddingConfig
from onebase.config import config
from onebase.objective.preference import PreferConfig

Method = Literal["prompt", "head", "lora", "soft", "prefix", "full"]
Task = Literal[
    "classify",
    "regress",
    "tag",
    "complete",
    "chat",
    "embed",
    "continue",
    "distil",
    "prefer",
    "reward",
    "reinforce",
]


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
    went through the chat template (of task chat this is known)."""

    method: Method
    task: Task
    base: BoundTo
    lora: LoraConfig | None = None
    head: HeadConfig | None = None
    prompt: PromptConfig | None = None
    soft: SoftConfig | None = None
    prefix: PrefixConfig | None = None
    embedding: EmbeddingConfig | None = None
    prefer: PreferConfig | None = None
    chats: bool = False
