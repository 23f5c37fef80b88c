"""Semantic search over texts, with an index of embeddings on disk. Run: python examples/search_documents.py [BASE]

An embedding model (sentence-transformers, for example hf:sentence-transformers/all-MiniLM-L6-v2) finds texts with a similar meaning. The tiny
base that is trained here without BASE finds texts with similar words.
"""

import tempfile
from pathlib import Path

from pretrain_tiny import FOOD, WEATHER, given_or_made

base = given_or_made()

rows = [{"text": f"On Friday we cook {food}.", "page": i} for i, food in enumerate(FOOD)]
rows += [{"text": f"Tomorrow there is {weather}.", "page": 100 + i} for i, weather in enumerate(WEATHER)]
index = base.index(rows)
print(f"{len(index)} texts, {index.vectors_ND.shape[1]} numbers each")
for found in index.search(f"On Monday we cook {FOOD[0]}.", top=3):
    print(f"{found.score:.3f} page {found.row['page']}: {found.text}")

with tempfile.TemporaryDirectory() as folder:
    index.save(Path(folder) / "index")
    again = base.index([{"text": "The shop opens at six.", "page": 200}], path=Path(folder) / "index")
    again.save(Path(folder) / "index", overwrite=True)
    best = again.search("The shop opens at six.", top=1)[0]
    print(f"{len(again)} texts now; found on page {best.row['page']}")
