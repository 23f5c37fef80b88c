"""What a user wants of a base: one file a task, what learns any of them, and what each answers and is scored by."""
