"""Teach a base of proteins which residues touch, from known structures. Run: python examples/adapt_contacts.py REF [FOLDER]

REF is ESM-2 or a base of your own (docs/proteins.md), FOLDER has PDB or mmCIF files, of which a fifth is for testing. Without a folder the proteins are toys, in which
tryptophans touch each other wherever they are.
"""

import random
import sys
from pathlib import Path
from typing import Any

import onebase

ENDINGS = (".pdb", ".pdb.gz", ".cif", ".cif.gz")


def toys(count: int, seed: int) -> list[dict[str, Any]]:
    """Sequences of 44 to 60 residues and their contacts, pairs of residues counted from 0."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        residues = draw.choices("AGLKSE", k=draw.randint(44, 60))
        at = sorted(draw.sample(range(len(residues)), 12))
        for i in at:
            residues[i] = "W"
        contacts = [[a, b] for a in at for b in at if b - a >= 6]
        rows.append({"sequence": "".join(residues), "contacts": contacts})
    return rows


def structures(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to train and to test."""
    rows = [{"structure": str(p)} for p in sorted(folder.iterdir()) if p.name.endswith(ENDINGS)]
    random.Random(0).shuffle(rows)
    return rows[len(rows) // 5 :], rows[: len(rows) // 5]


def main(ref: str, folder: Path | None) -> None:
    base = onebase.load(ref)
    train, test = (toys(12, 0), toys(6, 1)) if folder is None else structures(folder)
    adapter = base.adapt(train, task="contacts", method="head", epochs=30, batch_size=4, lr=1e-2)
    found = onebase.evaluate(base.with_adapter(adapter), test)
    print("with the adapter:", ", ".join(str(s) for s in found.values()))
    if folder is None:
        (answer,) = base.with_adapter(adapter).apply([test[0]["sequence"]])
        i, j, p = answer["contacts"][0]
        sequence = test[0]["sequence"]
        print(f"the likeliest contact is {sequence[i]}{i + 1} and {sequence[j]}{j + 1} ({p:.2f})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
