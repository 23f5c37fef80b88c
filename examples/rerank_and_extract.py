"""Rerank texts for a query, and extract an answer from a text. Run: python examples/rerank_and_extract.py [BASE]

A published reranker or question answering model works without training: onebase.load("hf:org/name").rerank(query, texts).
"""

import random

from pretrain_tiny import FOOD, WEATHER, given_or_made

import onebase

rng = random.Random(1)
base = given_or_made()

rows = []
for _ in range(8):
    food, weather = rng.choice(FOOD), rng.choice(WEATHER)
    rows.append({"query": "food", "texts": [f"We like {food}.", f"There is {weather}."], "grades": [1, 0]})
    rows.append({"query": "weather", "texts": [f"We like {food}.", f"There is {weather}."], "grades": [0, 1]})
ranking = base.with_adapter(base.adapt(rows, task="rerank", method="head"))
for found in ranking.rerank("weather", ["We eat cake.", "There is snow on Friday."]):
    print(f"{found.score:.3f} {found.text}")
print(f"ndcg@10 {onebase.evaluate(ranking, rows)['ndcg@10'].value:.3f}")

rows = []
for food in FOOD:
    text = f"On Friday we cook {food} at home."
    answers = {"text": [food], "answer_start": [text.index(food)]}
    rows.append({"question": "What do we cook?", "context": text, "answers": answers})
finding = base.with_adapter(base.adapt(rows, task="extract", method="head"))
(answer,) = finding.extract("What do we cook?", rows[0]["context"])
print(f"answer {answer.text!r}, characters {answer.start} to {answer.end}")
