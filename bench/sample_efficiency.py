"""Sample efficiency: the loss of Hugging Face's Trainer with AdamW after N tokens, and the number of tokens that onebase needs for it.

Both sides use the same tokenizer, documents, context, batch, held-out text and (within 2%) number of parameters; width 128. Each tunes its
learning rate over five values on seed 0, then runs three seeds. The Trainer runs a Llama with linear decay after warm-up on documents
joined by end tokens and cut to the context, as its examples do. Both are scored on the same held-out pieces. Ours runs once for each
claimed share of N, because the learning rate schedule depends on the budget. Both compute in bf16 if the chip multiplies it, else in fp32.

    python bench/sample_efficiency.py [--quick] [--isa avx2]
"""

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import arguments, child, chip_dtype, need, report

VOCAB, WIDTH, DEPTH, HEAD, LENGTH, ROWS = 4096, 128, 4, 32, 256, 16
LR_TRAINER = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
LR_OURS = (0.01, 0.02, 0.04, 0.08, 0.16)
SHARES = (0.65, 0.5, 0.35)
SEEDS = (0, 1, 2)


def shape() -> Any:
    """Our shape: the recipe of docs/training.md, with the feed-forward sized to match the Llama's number of parameters."""
    from onebase.base.config import TextShape

    return TextShape(
        width=WIDTH, depth=DEPTH, head_dim=HEAD, ff_hidden=516, context=LENGTH, vocab_size=VOCAB, softcap=15.0
    )


def prepare(folder: Path) -> None:
    """Corpus, tokenizer and tokens, once for both sides."""
    from onebase.data import TokenSet, prepare
    from onebase.demo.corpus import corpus
    from onebase.modality.text.tokenizer import Tokenizer

    dataset = prepare(corpus(0).documents(), folder / "corpus", holdout=0.0)
    texts = (d.text for i, d in enumerate(dataset.documents("train")) if i % 2 == 0)
    tokenizer = Tokenizer.train(texts, VOCAB)
    tokenizer.save(folder / "tokenizer.json")
    for split in ("train", "holdout"):
        TokenSet.build(dataset, split, tokenizer, folder / "tokens")


def opened(folder: Path) -> tuple[Any, Any, Any]:
    from onebase.data import Dataset, TokenSet
    from onebase.modality.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    dataset = Dataset.open(folder / "corpus")
    return tokenizer, *(
        TokenSet.build(dataset, s, tokenizer, folder / "tokens") for s in ("train", "holdout")
    )


def held_out(tokens: Any, limit: int = 100_000) -> list[list[int]]:
    """The held-out pieces for both sides: documents cut to the context, each with a BOS."""
    from onebase.data import RowPlan

    plan = RowPlan(tokens, LENGTH, 1)
    out: list[list[int]] = []
    for step in range(plan.rows_per_epoch):
        out += [[int(i) for i in piece.ids] for row in plan.rows(step) for piece in row]
        if sum(map(len, out)) > limit:
            break
    return out


def trainer_side(folder: Path, lr: float, seed: int, steps: int) -> dict[str, Any]:
    """One run of the Trainer."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    tokenizer, train, holdout = opened(folder)
    order = np.random.default_rng(seed).permutation(len(train))
    need, stream = steps * ROWS * LENGTH, []
    for i in np.concatenate([order] * 3):
        stream.append(np.append(train.tokens(int(i)).ids[1:], tokenizer.bos))
        need -= len(stream[-1])
        if need < 0:
            break
    flat = np.concatenate([[tokenizer.bos], *stream])[: steps * ROWS * LENGTH].reshape(-1, LENGTH)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=WIDTH // HEAD,
            intermediate_size=344,
            max_position_embeddings=LENGTH,
        )
    )
    rows = [{"input_ids": torch.tensor(r, dtype=torch.long)} for r in flat]
    rows = [r | {"labels": r["input_ids"]} for r in rows]
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=ROWS,
            max_steps=steps,
            learning_rate=lr,
            warmup_steps=max(1, steps // 20),
            lr_scheduler_type="linear",
            optim="adamw_torch",
            adam_beta2=0.95,
            weight_decay=0.1,
            bf16=chip_dtype() == "bf16",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=seed,
        )
        began = time.perf_counter()
        Trainer(model=model, args=args, train_dataset=rows).train()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # before scoring, which stores all logits
    total, count = 0.0, 0
    model.eval()
    with torch.no_grad():
        for piece in held_out(holdout):
            ids = torch.tensor([piece])
            z = model(ids).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(z, ids[0, 1:], reduction="sum"))
            count += len(piece) - 1
    return {
        "loss": total / count,
        "seconds": seconds,
        "peak_kib": peak,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def our_side(folder: Path, lr: float, seed: int, steps: int) -> dict[str, Any]:
    """One run of ours, with the training loop of the package."""
    from onebase.base.config import base_parameters, text_base
    from onebase.base.folder import LoadedBase
    from onebase.base.model import BaseModel
    from onebase.data import RowPlan
    from onebase.engine.scoring import score
    from onebase.modality.text.codec import TextCodec
    from onebase.objective.next_token import NextToken
    from onebase.train.config import AdamWConfig, MuonConfig, ScheduleConfig, TrainConfig
    from onebase.train.loop import Job, run

    tokenizer, train, holdout = opened(folder)
    cfg = text_base(shape())
    model = BaseModel(cfg)
    model.reset(seed)
    scale = lr / 0.02
    config = TrainConfig(
        steps=steps,
        batch_size=ROWS,
        sequence_length=LENGTH,
        seed=seed,
        muon=MuonConfig(lr=lr),
        adamw=AdamWConfig(embed=0.02 * scale, head=0.004 * scale, other=0.02 * scale),
        schedule=ScheduleConfig(warmup=5, warmdown=0.7, final=0.02),
        dtype=chip_dtype(),
    )
    began = time.perf_counter()
    result = run(Job(model, NextToken(LENGTH), RowPlan(train, LENGTH, ROWS, seed), config))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.eval().requires_grad_(False)
    model.compute_dtype = __import__("torch").float32
    pieces = held_out(holdout)
    logp = score(LoadedBase(model, TextCodec(tokenizer)), pieces)
    count = sum(len(x) for x in logp)
    return {
        "loss": -sum(float(x.sum()) for x in logp) / count,
        "seconds": seconds,
        "peak_kib": peak,
        "parameters": base_parameters(cfg),
        "tokens": result.state.tokens,
    }


def one(side: str, folder: Path, lr: float, seed: int, steps: int) -> dict[str, Any]:
    """A run in its own process, for its own peak memory, on one thread, because two run in parallel."""
    command = [sys.executable, __file__, "--run", side, str(folder), str(lr), str(seed), str(steps)]
    result = child(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    print(f"{side:8} lr {lr:<6} seed {seed} steps {steps}: {result}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps of each side")
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    args = arguments(parser)
    if args.run:
        side, folder, lr, seed, steps = args.run
        work = trainer_side if side == "trainer" else our_side
        print(json.dumps(work(Path(folder), float(lr), int(seed), int(steps))))
        return
    need("transformers", "accelerate")
    n = 40_000 if args.quick else 1_048_576
    seeds = SEEDS[:1] if args.quick else SEEDS
    lr_trainer, lr_ours = (LR_TRAINER[1:2], LR_OURS[1:2]) if args.quick else (LR_TRAINER, LR_OURS)
    steps = math.ceil(n / (ROWS * LENGTH))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        at = {share: math.floor(share * steps) for share in SHARES}
        with ThreadPoolExecutor(2) as pool:

            def go(side: str, lr: float, seed: int, count: int) -> Future[dict[str, Any]]:
                return pool.submit(one, side, folder, lr, seed, count)

            waiting = {lr: go("trainer", lr, 0, steps) for lr in lr_trainer}
            waiting_ours = {lr: go("ours", lr, 0, at[SHARES[0]]) for lr in lr_ours}
            tuned = {lr: f.result() for lr, f in waiting.items()}
            ours_tuned = {lr: f.result() for lr, f in waiting_ours.items()}
            best = min(tuned, key=lambda lr: float(tuned[lr]["loss"]))
            best_ours = min(ours_tuned, key=lambda lr: float(ours_tuned[lr]["loss"]))
            more = [go("trainer", best, s, steps) for s in seeds[1:]]
            more_ours = {
                str(share): [go("ours", best_ours, s, count) for s in seeds if share != SHARES[0] or s]
                for share, count in at.items()
            }
            peers = [tuned[best], *(f.result() for f in more)]
            runs = {share: [f.result() for f in fs] for share, fs in more_ours.items()}
        runs[str(SHARES[0])].insert(0, ours_tuned[best_ours])
        target = sum(p["loss"] for p in peers) / len(peers)
    mean = {share: sum(r["loss"] for r in rs) / len(rs) for share, rs in runs.items()}
    reached = [float(s) for s, loss in mean.items() if loss <= target]
    ours = [r for rs in runs.values() for r in rs]
    result = {
        "dtype": chip_dtype(),
        "tokens": steps * ROWS * LENGTH,
        "trainer_loss": target,
        "trainer_lr": best,
        "ours_loss_at_share": mean,
        "ours_lr": best_ours,
        "runs": {"trainer_tuning": tuned, "trainer": peers, "ours_tuning": ours_tuned, "ours": runs},
        "parameters": {"trainer": peers[0]["parameters"], "ours": ours[0]["parameters"]},
    }
    ratios = {
        "tokens_to_loss": min(reached) if reached else 1.0,
        "peak_memory": max(r["peak_kib"] for r in ours) / max(p["peak_kib"] for p in peers),
        "parameters": ours[0]["parameters"] / peers[0]["parameters"],
    }
    report("sample_efficiency", result, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
