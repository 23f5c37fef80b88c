"""Folders of PEFT adapters, and the names of PEFT's modules."""
