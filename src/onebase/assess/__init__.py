"""Assessment of a base as a whole: the gate against classical systems, comparisons, audits, lm-evaluation-harness."""
