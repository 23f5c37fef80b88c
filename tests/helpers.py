"""What several rooms' tests share: a tiny base with weights that say something, and a real server in a thread."""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from onebase.base.config import TextShape, text_base
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.methods.lora import Lora, LoraConfig, inject
from onebase.methods.table import METHODS
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.tokenizer import Tokenizer

LINES = (
    "The quick brown fox jumps over the lazy dog.\n",
    "def add(a, b):\n    return a + b\n",
    "Is this a question? Yes, it is. And this? No.\n",
    "Grüße aus Köln, naïve café, 中文 and 😀.\n",
)


def tiny_base(seed: int = 0, *, std: float = 0.2, endless: bool = False, **shape: Any) -> LoadedBase:
    """A random base in memory: width 32, depth 2, context 64, a vocabulary of about 300; keywords are TextShape's.

    All matrices are drawn from normal(0, std): the recipe's zero output projections and tiny head would hide mistakes.
    endless: greedy decoding never chooses a closing token.
    """
    tokenizer = Tokenizer.train(LINES * 4, 300)
    sizes = {
        "width": 32,
        "depth": 2,
        "head_dim": 16,
        "context": 64,
        "vocab_size": tokenizer.vocab_size,
    } | shape
    model = BaseModel(text_base(TextShape(**sizes)))
    model.reset(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in sorted(model.named_parameters()):
            if p.ndim == 2:
                p.copy_(torch.randn(p.shape, generator=generator) * std)
        if endless:  # a logit of 0 is never the largest
            model.text.head_weight_VD[[tokenizer.eos, tokenizer.id_of("<|end|>")]] = 0.0
    return LoadedBase(model.eval(), TextCodec(tokenizer))


def add_lora(base: LoadedBase, name: str, seed: int = 1, std: float = 0.3) -> None:
    """Attach a LoRA with random weights and random rows of three tokens, so that it changes what the base says."""
    inject(base.model, name, LoraConfig(rank=4, tokens=(40, 4, 100 + seed)), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for proj in base.model.sites().values():
            lora = proj.deltas[name]
            assert isinstance(lora, Lora)
            lora.b_OR.copy_(torch.randn(lora.b_OR.shape, generator=generator) * std)
        for p in base.model.text.deltas[name].parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * std)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Run an ASGI app by uvicorn on a free loopback port; gives its URL without the last slash."""
    import uvicorn

    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(600)
        sock.close()


@contextlib.contextmanager
def served(*words: object, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """`onebase serve` as a process of its own on a free loopback port; gives its URL without the last slash."""
    line = [sys.executable, "-m", "onebase", "serve", *map(str, words), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(line, env={**os.environ, **(env or {})}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    while not (found := re.search(r"Serving on (\S+)/v1", said)):
        read = process.stderr.readline()
        assert read, said
        said += read
    try:
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=600)


def posted(url: str, path: str, body: object) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer to JSON."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return answer.status, found


def client_of(url: str, **options: Any) -> Any:
    """The real `openai` client for a server of ours; no proxy stands between."""
    import openai

    http = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(
        base_url=f"{url}/v1", api_key="none", http_client=http, max_retries=0, timeout=600, **options
    )


def taken(method: str, **options: Any) -> dict[str, Any]:
    """Of options that belong to methods those that this one takes: it refuses the others."""
    return {k: v for k, v in options.items() if k in METHODS[method].option_names}
