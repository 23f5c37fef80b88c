"""Write the Python language reference, part of every Python installation (pydoc_data), as texts. Run: python examples/guides/topics.py

Writes topics/NAME.txt, one file for each topic, and topics.jsonl, one row for each paragraph: `text` and `topic`. Licence: PSF-2.0, as Python's.
"""

import json
from pathlib import Path
from pydoc_data.topics import topics

folder = Path("topics")
folder.mkdir(exist_ok=True)
rows = []
for name, text in sorted(topics.items()):
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    rows += [{"text": p, "topic": name} for p in paragraphs if len(p) > 80]
seen: set[str] = set()  # some paragraphs occur in several topics
unique = [r for r in rows if not (r["text"] in seen or seen.add(r["text"]))]
Path("topics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in unique), encoding="utf-8")
print(f"{len(topics)} topics in {folder}, {len(unique):,} paragraphs in topics.jsonl")
