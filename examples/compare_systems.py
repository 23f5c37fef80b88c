"""Find the best system for a task: a classical one, or a method on a base. Run: python examples/compare_systems.py [BASE]"""

from adapt_classify import labelled
from pretrain_tiny import given_or_made

import onebase

base = given_or_made()
known = labelled(30, seed=1)
seen = {row["text"] for row in known}
comparison = onebase.compare(
    [base],  # several bases can be given
    known,
    [row for row in labelled(80, seed=2) if row["text"] not in seen],
    methods=["classical", "prompt", "head"],  # default: all that fit into the time
    minutes=5,
)
print(comparison.table)
print(comparison.line)
if comparison.adapter is not None:
    print(f"the best adapter is a {comparison.adapter.method} of {comparison.adapter.bytes} bytes")
