"""Preference training: DPO, and a reward model. Run: python examples/adapt_prefer.py [BASE]

DPO raises the probability of the preferred answers. A reward model does not change what the base generates; it rates answers.
"""

from pathlib import Path

from pretrain_tiny import given_or_made

import onebase

data = Path(__file__).with_name("preferences.jsonl")
base = given_or_made()
before = onebase.evaluate(base, data, task="prefer")
print("the base alone:", before["preferred"])

polite = base.adapt(
    data, task="prefer", method="lora", epochs=8, lr=1e-3, prefer={"loss": "dpo", "beta": 0.1}, log=print
)
for score in onebase.evaluate(base.with_adapter(polite), data).values():
    print("after DPO:", score)

judge = base.with_adapter(base.adapt(data, task="reward", method="head"))
question = [{"role": "user", "content": "Do you ship to Norway?"}]
for answer in ("Yes, and it takes about a week.", "Look it up yourself."):
    print(f"{judge.reward([(question, answer)])[0]:7.2f}  {answer}")
