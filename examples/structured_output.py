"""Structured output: JSON that fits a schema, or text that matches a regular expression. Run: python examples/structured_output.py [BASE]

Needs: pip install "onebase[structured]". Without a base it trains a tiny one, whose answers fit the schema but make little sense.
"""

import json
from pathlib import Path

from pretrain_tiny import given_or_made

import onebase

base = given_or_made()
schema = (Path(__file__).parent / "menu.schema.json").read_text(encoding="utf-8")
text = base.generate("On Friday there is ", constraint=onebase.Constraint(schema=schema))
print("generated text:   ", text)
print("dish and guests:  ", json.loads(text)["dish"], json.loads(text)["for"])

day = onebase.Constraint(regex="(Mon|Fri|Sun)day, [0-9]{1,2} (am|pm)")
print("a day:            ", base.generate("It is cold on ", constraint=day))

# A schema that decoding cannot guarantee is refused before the first token.
try:
    base.generate("On Friday", constraint=onebase.Constraint(schema={"type": "array", "uniqueItems": True}))
except onebase.UserError as e:
    print("refused:          ", e.cause)
