"""PEFT's adapters as folders, and what its modules are called."""
