"""Pretraining a base: the recipe, its objectives, the run and its folder, and cost estimates."""
