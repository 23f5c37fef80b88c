"""Open weights in and out: one list of invertible rules per family, formats, and nothing that looks at a model's name."""
