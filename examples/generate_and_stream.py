"""Generate text: greedy, sampled, streamed, and with the log-probability of each token. Run: python examples/generate_and_stream.py [BASE]"""

from pretrain_tiny import given_or_made

base = given_or_made()
prompt = "On Friday"
print("greedy: ", repr(base.generate(prompt, max_tokens=16)))
print("sampled:", repr(base.generate(prompt, max_tokens=16, temperature=0.9, top_p=0.95, seed=1)))
print("stopped:", repr(base.generate(prompt, max_tokens=64, stop=("."))))

print("streamed: ", end="")
for piece in base.stream(prompt, max_tokens=24, temperature=0.7, seed=2):
    print(piece, end="", flush=True)
print()

# Score a text: the log-probability of each token given the tokens before it.
ids = base.tokenizer.encode("On Friday there is snow.", bos=True)
logp = base.logits(ids).log_softmax(-1)
for before, token in enumerate(ids[1:]):
    print(f"{base.tokenizer.decode([token])!r:>12} {float(logp[before, token]):7.2f} nats")

print("one vector for each text:", tuple(base.embed(["snow and fog", "bread and tea"]).shape))
