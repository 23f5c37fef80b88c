"""What an adapter is, as config: its method, its task, and which base it was made for."""

from typing import Literal

from onebase.adapt.head import HeadConfig
from onebase.adapt.lora import LoraConfig
from onebase.adapt.prefix import PrefixConfig
from onebase.adapt.soft import SoftConfig
from onebase.codec.text.pooling import EmbeddingConfig
from onebase.config import config

Method = Literal["prompt", "head", "lora", "soft", "prefix", "full"]
Task = Literal["classify", "regress", "tag", "complete", "chat", "embed"]


@config
class PromptConfig:
    """Classify without labels: `template` holds {text}; `answers` gives each label the text whose probability is compared.

    `bias` is taken from each label's log-probability: its mean over unlabelled texts, which takes out what the base says whatever
    the text (batch calibration, 2309.17249). It supposes that the labels are about equally common.
    """

    template: str
    answers: dict[str, str]
    bias: dict[str, float] | None = None


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
    before a text, `embedding` how a text becomes a vector with it."""

    method: Method
    task: Task
    base: BoundTo
    lora: LoraConfig | None = None
    head: HeadConfig | None = None
    prompt: PromptConfig | None = None
    soft: SoftConfig | None = None
    prefix: PrefixConfig | None = None
    embedding: EmbeddingConfig | None = None
