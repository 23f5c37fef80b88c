"""What judges a base as a whole: the gate against classical systems, audits, lm-evaluation-harness."""
