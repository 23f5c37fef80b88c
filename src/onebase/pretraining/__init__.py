"""Pretraining a base: the recipe, the objectives that it may name, the run and its folder, and what it would cost."""
