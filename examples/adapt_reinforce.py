"""Reinforcement learning (GRPO): completions that a reward function rates higher become more probable. Run: python examples/adapt_reinforce.py [BASE]"""

from pathlib import Path
from typing import Any

from pretrain_tiny import given_or_made

import onebase

DATA = Path(__file__).with_name("arithmetic.jsonl")


def digits(prompt: str, completion: str, row: dict[str, Any]) -> float:
    """The reward: the share of digits in a completion. A tiny base cannot learn to add, but it can learn this."""
    text = completion.strip()
    return sum(c.isdigit() for c in text) / max(1, len(text))


def main() -> None:
    base = given_or_made()
    how: dict[str, Any] = {"reward": f"{__file__}:digits", "max_tokens": 6}
    before = onebase.evaluate(base, DATA, task="reinforce", judge=how)["reward"]
    adapter = base.adapt(
        DATA,
        task="reinforce",
        method="lora",
        epochs=5,
        batch_size=8,
        lr=1e-2,
        reinforce={**how, "kl": 0.01},
    )
    for point in adapter.record.get("reinforce.curve")[::6]:
        print(f"rollout {point['rollout']:.0f}: reward {point['reward']:.3f}, kl {point['kl']:.3f}")
    after = onebase.evaluate(base.with_adapter(adapter), DATA, judge=how)["reward"]
    print(f"greedy before: {before}")
    print(f"greedy after: {after}")


if __name__ == "__main__":
    main()
