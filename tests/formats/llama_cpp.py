"""llama.cpp in this process, asked over its server, and texts that show how a tokenizer cuts. Needs the package xllamacpp."""

import json
import random
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import onebase
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.tokenizer import Tokenizer
from tests.formats.parity import shaken
from tests.formats.test_gguf_write import config

CORPUS = (
    "hello there, hello world: this is the text of 12345, 1234, 123 and 12.\n\n  def add(a, b):\n    return a\n"
    "Don't they'll we've I'm naïve café Grüße 中文 中文 😀 2026-11-22 3.14159 1,000,000\r\n"
)
TEXTS = [
    "",
    " ",
    "hello 1 12 123 1234 12345 123456789",
    "a1b22c333d4444 ½ ² Ⅷ ١٢٣٤",
    "don't DON'T they'LL 'Ve 'x ''s",
    "a\n\n\n b\r\n\r\n\tc  \n d   ",
    "    return a + b  # done\n\n\n\n",
    "Grüße, naïve 中文 😀👍🏽 e\u0301 \u00a0x",
    "!!!\n\n??? --- ... \n",
    "<|eos|> </s> <s> [INST]",
]


def base_of(tokenizer: Tokenizer) -> onebase.Base:
    cfg = config()
    codec = replace(cfg.codecs["text"], vocab_size=tokenizer.vocab_size + 3)
    model = shaken(BaseModel(replace(cfg, codecs={"text": codec}))).requires_grad_(False).eval()
    return onebase.Base(LoadedBase(model, TextCodec(tokenizer)))


class LlamaCpp:
    """A file open in llama.cpp, asked over its server."""

    def __init__(self, file: Path, embeds: bool = False) -> None:
        xllamacpp = pytest.importorskip("xllamacpp")
        p = xllamacpp.CommonParams()
        p.embedding = embeds
        p.model.path, p.n_ctx, p.n_parallel, p.warmup, p.port = str(file), 128, 1, False, 0
        p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        p.fit_params, p.verbosity, p.n_threads_http = False, -1, 1
        p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
        self.server = xllamacpp.Server(p)
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def ask(self, what: str, **body: Any) -> Any:
        head = {"Content-Type": "application/json"}
        where = f"{self.server.listening_address}/{what}"
        return json.load(
            self.open(urllib.request.Request(where, json.dumps(body).encode(), head), timeout=600)
        )

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.ask("tokenize", content=text, add_special=False, parse_special=False)[
            "tokens"
        ]
        return found


def some_texts() -> list[str]:
    """Texts made of what splitting turns on: digits, spaces, line breaks, quotes, letters of several scripts."""
    rng = random.Random(1)
    parts = [
        *"0123456789 '\n\t.,-ab",
        "  ",
        "\r\n",
        "'s",
        "'LL",
        "é",
        "中",
        "😀",
        "12",
        "hello",
        "ß",
        "½",
        "(",
        "_",
    ]
    return ["".join(rng.choices(parts, k=rng.randint(1, 40))) for _ in range(300)]


def agree(base: onebase.Base, there: LlamaCpp) -> bool:
    """The same log-probabilities after a text; it is one that llama.cpp goes on from with a whole letter, else it says none."""
    how = {"n_predict": 1, "temperature": 0.0, "n_probs": 20, "post_sampling_probs": False}
    for times in (3, 2, 1, 4, 5):
        ids = base.tokenizer.encode("hello there, 123 world " * times, bos=True)
        found = there.ask("completion", prompt=ids, ignore_eos=True, **how)
        if said := found.get("completion_probabilities"):
            ours = base.logits(ids)[-1].float().log_softmax(-1)
            return max(abs(ours[t["id"]].item() - t["logprob"]) for t in said[0]["top_logprobs"]) < 1e-4
    raise AssertionError("llama.cpp says no probabilities")
