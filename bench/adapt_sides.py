"""The sides of bench/adapt.py, each run in a process of its own: ours, and PEFT and transformers' Trainer. Prints one JSON object.

    python bench/adapt_sides.py SIDE TASK BASE DATA [--dtype bf16] [--samples N] [--threads N]

SIDE: ours, trainer. TASK: lora (rank 8 on all linear layers, on conversations) or full (all weights and a head, on labelled texts). BASE: the
model that the side loads. DATA: a JSON file by bench/adapt.py, with the same samples for both: rows, token ids and loss masks.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

RANK, ROWS, LENGTH = 8, 8, 128
WARM = 3  # warm-up steps that are not counted
LABELLED_ROWS = 16


class Clock:
    """Time at the end of each step; a callback of our loop, and used by the Trainer's callback."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.losses: list[float] = []

    def start(self, step: int, total: int | None) -> None: ...

    def step(self, info: Any) -> None:
        self.at.append(time.perf_counter())
        self.losses.append(info.loss)

    def close(self) -> None: ...


def ours(task: str, base: str, data: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Base.adapt, as a user calls it."""
    import onebase

    loaded, clock = onebase.load(base, dtype=dtype), Clock()
    if task == "lora":
        # Three packed rows of 256 contain about eight of these samples, so both sides take as many steps.
        more: dict[str, Any] = {"task": "chat", "method": "lora", "rank": RANK, "batch_size": 3}
    else:
        more = {"task": "classify", "method": "full", "rows": LABELLED_ROWS, "pooling": "mean"}
    adapter = loaded.adapt(data["rows"], epochs=1, seed=0, callbacks=[clock], **more)
    record = adapter.parts.record
    return summary(clock, record.get("tokens.supervised"), record.get("train.steps"))


def trainer(task: str, base: str, data: dict[str, Any], dtype: str) -> dict[str, Any]:
    """PEFT's LoRA and transformers' Trainer on the same token ids; rows are padded to the longest of a batch."""
    import torch
    import transformers
    from transformers import Trainer, TrainerCallback, TrainingArguments

    clock = Clock()

    class Callback(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.at.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                clock.losses.append(logs["loss"])

    torch.manual_seed(0)
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    if task == "lora":
        from peft import LoraConfig, get_peft_model

        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=kind)
        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear"))
    else:
        # The master weights are fp32 on both sides, as in mixed precision.
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=data["labels"], dtype=torch.float32
        )

    def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(f["ids"]) for f in features)
        ids = torch.zeros(len(features), longest, dtype=torch.long)
        mask, labels = ids.clone(), torch.full_like(ids, -100)
        for b, f in enumerate(features):
            n = len(f["ids"])
            ids[b, :n], mask[b, :n] = torch.tensor(f["ids"]), 1
            if task == "lora":
                learnt = torch.tensor(f["learnt"], dtype=torch.bool)
                labels[b, :n] = torch.where(learnt, ids[b, :n], -100)
        if task != "lora":
            labels = torch.tensor([f["label"] for f in features])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    args = TrainingArguments(
        output_dir="unused",
        per_device_train_batch_size=ROWS if task == "lora" else LABELLED_ROWS,
        num_train_epochs=1,
        learning_rate=1e-3 if task == "lora" else 5e-5,
        bf16=dtype == "bf16",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    samples = data["samples"]
    Trainer(
        model=model, args=args, train_dataset=samples, data_collator=collate, callbacks=[Callback()]
    ).train()
    learnt = sum(sum(s["learnt"]) for s in samples) if task == "lora" else len(samples)
    return summary(clock, learnt, len(clock.at))


def summary(clock: Clock, supervised: int, steps: int) -> dict[str, Any]:
    """Supervised tokens (or texts) per second after the warm-up, and the peak memory of the process."""
    seconds = clock.at[-1] - clock.at[WARM - 1]
    return {
        "supervised_per_second": supervised / steps * (len(clock.at) - WARM) / seconds,
        "peak_bytes": peak(),
        "seconds_a_step": statistics.median(
            b - a for a, b in zip(clock.at[WARM - 1 :], clock.at[WARM:], strict=False)
        ),
        "steps": steps,
        "supervised": supervised,
        "first_loss": clock.losses[0],
        "last_loss": clock.losses[-1],
    }


def peak() -> int:
    """Peak resident bytes of this process since its start (getrusage would include the parent's)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("ours", "trainer"))
    parser.add_argument("task", choices=("lora", "full"))
    parser.add_argument("base")
    parser.add_argument("data", type=Path)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    data = json.loads(args.data.read_text(encoding="utf-8"))
    for name in ("rows", "samples"):
        data[name] = data[name][: args.samples]
    side = {"ours": ours, "trainer": trainer}[args.side]
    print(json.dumps(side(args.task, args.base, data, args.dtype)))


if __name__ == "__main__":
    main()
