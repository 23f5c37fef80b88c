"""Fine-tune a base to chat, by LoRA on a few chats. Run: python examples/adapt_chat_lora.py [BASE]

Only the adapter is written. Without it the base answers as before.
"""

import tempfile
from pathlib import Path

from pretrain_tiny import FOOD, WEATHER, given_or_made


def chat(question: str, answer: str) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


rows = [chat(f"What is {word}?", "It is food.") for word in FOOD]
rows += [chat(f"What is {word}?", "It is weather.") for word in WEATHER]

base = given_or_made()
# `log` gets the token ledger first: text that the loss covers is marked with « ».
adapter = base.adapt(rows, task="chat", method="lora", rank=8, epochs=60, lr=5e-3, log=print)
folder = adapter.save(Path(tempfile.mkdtemp()) / "what-is-it")
print("adapter:", sorted(p.name for p in folder.iterdir()))

speaking = base.with_adapter(folder)
for word in ("soup", "fog"):
    question = [{"role": "user", "content": f"What is {word}?"}]
    print(f"What is {word}?  with the adapter: {speaking.chat(question, max_tokens=16)!r}")
    print(f"What is {word}?  the base alone:   {base.chat(question, max_tokens=16)!r}")
