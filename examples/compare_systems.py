"""Ask which is best for a task, a classical system or a method on a base. Run: python examples/compare_systems.py [BASE]"""

from adapt_classify import labelled
from pretrain_tiny import given_or_made

import onebase

base = given_or_made()
known = labelled(30, seed=1)
seen = {row["text"] for row in known}
found = onebase.compare(
    [base],  # several bases can be given
    known,
    [row for row in labelled(80, seed=2) if row["text"] not in seen],
    methods=["classical", "prompt", "head"],  # all that fit into the time, where none are named
    minutes=5,
)
print(found.table)
print(found.line)
if found.adapter is not None:
    print(f"the best adapter is a {found.adapter.method} of {found.adapter.bytes} bytes")
