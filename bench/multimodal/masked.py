"""Speed of masked language modelling compared with the Hugging Face Trainer and a BERT of the same size: whole training steps.

Vocabulary 8192, width 256, depth 6, 4 heads, feed-forward 1024, embedding and head tied, 16 rows of 256 tokens per step, of which 15% are hidden (80%
mask, 10% random, 10% kept), AdamW, gradients clipped. The Trainer hides them by its own DataCollatorForLanguageModeling. Ours is the encoder of
recipes/bert.yaml (no token types, rotary positions instead of a table). All sides run in fresh processes, in turns; the median step
is reported, in CPU time of all threads (a shared machine's wall time says little).

    python bench/multimodal/masked.py [--quick] [--isa avx2] [--rounds N] [--steps N]
"""

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import arguments, child, chip_dtype, need, report

VOCAB, WIDTH, DEPTH, HEADS, ROWS, LENGTH = 8192, 256, 6, 4, 16, 256
SIDES = ("ours", "ours_eager", "trainer", "trainer_compiled")
SKIPPED = 2
MASK, FIRST = 4, 10  # ids: the mask token; the first ordinary one


def clock() -> float:
    """Seconds of CPU time of this process, all threads; wall time would say what else the machine does."""
    return time.process_time()


def token_rows(steps: int) -> Any:
    """int64 [steps * ROWS, LENGTH]: the same random tokens for every side."""
    import numpy as np

    return np.random.default_rng(0).integers(FIRST, VOCAB, (steps * ROWS, LENGTH))


def trainer(side: str, steps: int) -> tuple[list[float], float, int]:
    """Seconds per step, the first loss and the number of parameters of the Trainer."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    marks: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(clock())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            losses.extend([float(logs["loss"])] if "loss" in logs else [])

    torch.manual_seed(0)
    words = {f"w{i}": i for i in range(VOCAB)} | {"[MASK]": MASK, "[PAD]": 0}
    inner = Tokenizer(
        models.WordLevel({k: v for k, v in words.items() if k not in ("w0", f"w{MASK}")}, "[PAD]")
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, mask_token="[MASK]", pad_token="[PAD]")
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config)
    data = [{"input_ids": row} for row in torch.from_numpy(token_rows(steps + 1))]
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(sys.stderr):
        options = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=ROWS,
            max_steps=steps + 1,
            bf16=chip_dtype() == "bf16",
            torch_compile=side.endswith("_compiled"),
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            learning_rate=3e-4,
            disable_tqdm=True,
        )
        Trainer(
            model=model,
            args=options,
            train_dataset=data,
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
            callbacks=[Clock()],
        ).train()
    return (
        [b - a for a, b in itertools.pairwise(marks)],
        losses[0],
        sum(p.numel() for p in model.parameters()),
    )


def ours(side: str, steps: int) -> tuple[list[float], float, int]:
    """The same for onebase's own loop."""
    import numpy as np

    from onebase.base.config import TextShape, text_base
    from onebase.base.model import BaseModel
    from onebase.modality.text import Tokens
    from onebase.objective.masked import Masked
    from onebase.train.callbacks import NoCallback, StepInfo
    from onebase.train.config import AdamWConfig, TrainConfig
    from onebase.train.loop import Job, run

    ids = token_rows(steps + 1).astype(np.int32)

    class Rows:
        digest = "bench"

        def rows(self, step: int) -> list[list[Tokens]]:
            at = step % (steps + 1) * ROWS
            loss = np.ones(LENGTH, np.bool_)
            return [[Tokens(row, loss, str(i), "bench")] for i, row in enumerate(ids[at : at + ROWS])]

    marks: list[float] = []

    class Clock(NoCallback):
        def start(self, step: int, total: int | None) -> None:
            marks.append(clock())

        def step(self, info: StepInfo) -> None:
            marks.append(clock())

    shape = TextShape(
        width=WIDTH, depth=DEPTH, head_dim=WIDTH // HEADS, context=LENGTH, vocab_size=VOCAB, tied=True
    )
    model = BaseModel(text_base(shape, direction="both"))
    model.reset(0)
    train = TrainConfig(
        steps=steps,
        batch_size=ROWS,
        sequence_length=LENGTH,
        muon=None,
        adamw=AdamWConfig(matrix=3e-4, embed=3e-4, head=3e-4, other=3e-4),
        dtype=chip_dtype(),  # type: ignore[arg-type]
        device="cpu",
        compile=side == "ours",
    )
    objective = Masked(LENGTH, MASK, np.arange(FIRST, VOCAB))
    result = run(Job(model, objective, Rows(), train, callbacks=(Clock(),)))
    parameters = sum(p.numel() for p in model.parameters())
    return [b - a for a, b in itertools.pairwise(marks)], result.losses[0], parameters


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of few steps, as a smoke test")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="steps per round (10; quick: 4)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["ours", "ours_eager", "trainer"])
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = arguments(parser)
    steps = args.steps or (4 if args.quick else 10)
    if args.worker:
        seconds, loss, parameters = (ours if args.worker.startswith("ours") else trainer)(args.worker, steps)
        print(json.dumps({"seconds": seconds, "first_loss": loss, "parameters": parameters}))
        return
    need("transformers", "accelerate")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in args.sides}
    for i in range(1 if args.quick else args.rounds):
        for side in args.sides:
            runs[side].append(child([sys.executable, __file__, "--worker", side, "--steps", str(steps)]))
            step = statistics.median(runs[side][-1]["seconds"][SKIPPED:])
            print(f"round {i + 1} {side}: {ROWS * LENGTH / step:.0f} tokens/s", file=sys.stderr)
    results = {}
    for side, found in runs.items():
        step = statistics.median(s for run in found for s in run["seconds"][SKIPPED:])
        results[side] = {
            "tokens_per_second": ROWS * LENGTH / step,
            "step_seconds": step,
            "rounds": [ROWS * LENGTH / statistics.median(run["seconds"][SKIPPED:]) for run in found],
            "first_loss": found[0]["first_loss"],
            "parameters": found[0]["parameters"],
        }
    speed = {side: found["tokens_per_second"] for side, found in results.items()}
    ratios = {
        f"{mine}_{side}": speed[mine] / speed[side]
        for mine in ("ours", "ours_eager")
        for side in ("trainer", "trainer_compiled")
        if mine in speed and side in speed
    }
    report("masked", results, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
