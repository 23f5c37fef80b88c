"""The sides of bench/decode.py, each run in a process of its own: ours, transformers, llama.cpp. Prints one JSON object.

    python bench/decode_sides.py SIDE FORM MODEL [--load | --quantize] [--threads N] [--tokens N] [--prompt N]

FORM: fp32, bf16, 8, 4, 4h4 (a 4-bit head) for ours; fp32, bf16 for transformers; any word for llama.cpp (the GGUF file decides).
Quantized weights compute in bf16 if the chip multiplies it, else in fp32. --load: only the time from the file to the first token; the clock
starts after torch is imported. --quantize: only `Base.quantize(4)`, as the command of that name calls it.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

PROMPT = "The history of the city begins with the river on which it stands. Long before the first bridge was built,"
LONG = 1024
FORMATS = ("fp32", "bf16")


def text_of(length: int) -> str:
    """The first `length` characters of English prose that comes with Python."""
    import pydoc_data.topics

    topics: dict[str, str] = pydoc_data.topics.topics
    return " ".join(topics[k] for k in sorted(topics))[:length]


class Ours:
    """Base.load and the decode engine, as a user of the package has them."""

    def __init__(self, model: str, form: str) -> None:
        import onebase

        self.base = onebase.load(model, dtype=form if form in FORMATS else "auto")
        if form not in FORMATS:
            from onebase.model.config import StorageConfig

            storage = StorageConfig(bits=8 if form == "8" else 4, head=4 if form == "4h4" else 8)
            self.base.loaded.model.quantise(storage)

    def ids(self, text: str) -> list[int]:
        return self.base.tokenizer.encode(text, bos=True)

    def run(self, ids: list[int], streams: int, tokens: int) -> tuple[float, int]:
        """Seconds, and number of tokens of the longest answer."""
        from onebase.engine.decoder import Decoder
        from onebase.engine.sampler import Sampling

        began = time.perf_counter()
        decoder = Decoder(self.base.loaded, [ids] * streams, Sampling(max_tokens=tokens))
        steps = 0
        while decoder.live:
            steps += bool(decoder.step())
        return time.perf_counter() - began, steps


class Transformers:
    """AutoModelForCausalLM.generate with its default cache, greedy."""

    def __init__(self, model: str, form: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[form]
        path = Path(model)
        where, more = (str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" else (model, {})
        self.tokenizer = AutoTokenizer.from_pretrained(where, **more)
        self.model = AutoModelForCausalLM.from_pretrained(where, dtype=kind, **more).eval()
        self.model.generation_config.eos_token_id = None  # always the full number of tokens
        self.model.generation_config.pad_token_id = 0

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text)["input_ids"]
        return found

    def run(self, ids: list[int], streams: int, tokens: int) -> tuple[float, int]:
        import torch

        began = time.perf_counter()
        out = self.model.generate(
            torch.tensor([ids] * streams), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
        )
        return time.perf_counter() - began, out.shape[1] - len(ids)


class LlamaCpp:
    """llama.cpp through xllamacpp: its own timings of prompt and answer, with the instructions that it was built for."""

    def __init__(self, model: str, form: str, threads: int) -> None:
        import xllamacpp

        p = xllamacpp.CommonParams()
        p.model.path, p.n_ctx, p.n_parallel, p.warmup = model, 2048, 1, True
        p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
        self.server = xllamacpp.Server(p)

    def timings(self, prompt: str, tokens: int) -> dict[str, Any]:
        request = {
            "prompt": prompt,
            "n_predict": tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        timings: dict[str, Any] = self.server.handle_completions(request)["timings"]
        return timings


def measured(side: Ours | Transformers, streams: int, tokens: int, long: int) -> dict[str, float]:
    """Tokens per second: of answers after their first token, over all streams; and of a prompt of `long` tokens."""
    ids = side.ids(PROMPT)
    side.run(ids, streams, 4)
    first, _ = side.run(ids, streams, 1)
    whole, count = side.run(ids, streams, tokens)
    rates = {"decode": streams * (count - 1) / (whole - first)}
    if streams == 1:
        read = side.ids(text_of(12 * long))[:long]
        rates["prompt"] = long / min(side.run(read, 1, 1)[0] for _ in range(2))
    return rates


def loaded(side: str, model: str, form: str, threads: int) -> dict[str, float]:
    """Seconds from a file to the first token."""
    if side == "llama.cpp":
        began = time.perf_counter()
        LlamaCpp(model, form, threads).timings(PROMPT, 1)
        return {"first_token": time.perf_counter() - began}
    import torch

    torch.set_num_threads(threads)
    began = time.perf_counter()
    opened: Ours | Transformers = Ours(model, form) if side == "ours" else Transformers(model, form)
    opened.run(opened.ids(PROMPT), 1, 1)
    return {"first_token": time.perf_counter() - began}


def quantized(model: str, threads: int) -> dict[str, float]:
    """Seconds of `Base.quantize(4)`, its own measurement of perplexity included, and the result of that measurement."""
    import torch

    import onebase

    torch.set_num_threads(threads)
    base = onebase.load(model)
    began = time.perf_counter()
    small = base.quantize(4)
    seconds = time.perf_counter() - began
    before, after = (small.record.get(f"quantised.perplexity{x}") for x in ("_before", ""))
    return {"seconds": seconds, "perplexity_over_before": after / before}


def peak_mb() -> float:
    """Peak memory of this process (getrusage would include the parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["ours", "transformers", "llama.cpp"])
    parser.add_argument("form")
    parser.add_argument("model")
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--quantize", action="store_true")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=LONG, help="tokens of the long prompt")
    args = parser.parse_args()
    if args.load:
        found = loaded(args.side, args.model, args.form, args.threads)
    elif args.quantize:
        found = quantized(args.model, args.threads)
    elif args.side == "llama.cpp":
        peer = LlamaCpp(args.model, args.form, args.threads)
        peer.timings(PROMPT, 4)
        short, long = peer.timings(PROMPT, args.tokens), peer.timings(text_of(4 * args.prompt), 1)
        found = {"decode": short["predicted_per_second"], "prompt": long["prompt_per_second"]}
        found["prompt_tokens"] = long["prompt_n"]
    else:
        import torch

        torch.set_num_threads(args.threads)
        side = Ours(args.model, args.form) if args.side == "ours" else Transformers(args.model, args.form)
        found = measured(side, args.streams, args.tokens, args.prompt)
    found["peak_mb"] = peak_mb()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
