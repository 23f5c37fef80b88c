"""Ask which is best for a task, a classical system or a method on a base. Run: python examples/compare_systems.py [BASE]"""

from adapt_classify import labelled
from pretrain_tiny import given_or_made

import onebase

base = given_or_made()
found = onebase.compare(
    [base],  # several bases can be given
    labelled(30, seed=1),
    labelled(60, seed=2),
    methods=["classical", "prompt", "head"],  # all that fit into the time, where none are named
    minutes=5,
)
print(found.table)
print(found.line)
if found.adapter is not None:
    print(f"the best adapter is a {found.adapter.method} of {found.adapter.bytes} bytes")
