"""Speed of masked language modelling compared with the Hugging Face Trainer and a BERT of the same size: whole training steps.

Vocabulary 8192, width 256, depth 6, 4 heads, feed-forward 1024, embedding and head tied, 16 rows of 256 tokens per step, of which 15% are hidden (80%
mask, 10% random, 10% kept), AdamW, gradients clipped. The Trainer hides them by its own DataCollatorForLanguageModeling. Ours is the encoder of
recipes/bert.yaml (no token types, rotary positions instead of a table, no dense layer before the head; it computes the logits of hidden tokens
alone). All sides run in fresh processes, in turns; the median step is reported, in wall time.

    python bench/multimodal/masked.py [--quick] [--isa avx2] [--rounds N] [--steps N]
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import arguments, child, chip_dtype, need, report
from training_sides import Timed, our_steps, trainer_steps

VOCAB, WIDTH, DEPTH, HEADS, ROWS, LENGTH = 8192, 256, 6, 4, 16, 256
SIDES = ("ours", "ours_eager", "trainer", "trainer_compiled")
SKIPPED = 2
MASK, FIRST = 4, 10  # ids: the mask token; the first ordinary one


def token_rows(steps: int) -> Any:
    """int64 [steps * ROWS, LENGTH]: the same random tokens for every side."""
    import numpy as np

    return np.random.default_rng(0).integers(FIRST, VOCAB, (steps * ROWS, LENGTH))


def trainer(side: str, steps: int) -> Timed:
    """Seconds per step, losses and number of parameters of the Trainer."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
    )

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
    return trainer_steps(
        BertForMaskedLM(config),
        [{"input_ids": row} for row in torch.from_numpy(token_rows(steps + 1))],
        steps,
        ROWS,
        bf16=chip_dtype() == "bf16",
        compiled=side.endswith("_compiled"),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
    )


def ours(side: str, steps: int) -> Timed:
    """The same for onebase's own loop."""
    from onebase.base.config import TextShape, text_base
    from onebase.objective.masked import Masked

    shape = TextShape(
        width=WIDTH, depth=DEPTH, head_dim=WIDTH // HEADS, context=LENGTH, vocab_size=VOCAB, tied=True
    )
    return our_steps(
        text_base(shape, direction="both"),
        lambda np: Masked(LENGTH, MASK, np.arange(FIRST, VOCAB)),
        token_rows(steps + 1),
        steps,
        ROWS,
        muon=False,
        compiled=side == "ours",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of few steps, as a smoke test")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="steps per round (10; quick: 4)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = arguments(parser)
    steps = args.steps or (4 if args.quick else 10)
    if args.worker:
        seconds, losses, parameters = (ours if args.worker.startswith("ours") else trainer)(
            args.worker, steps
        )
        print(json.dumps({"seconds": seconds, "first_loss": losses[0], "parameters": parameters}))
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
