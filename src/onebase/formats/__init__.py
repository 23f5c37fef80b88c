"""Imports and exports open weights: one list of invertible rules per family, and file formats. Nothing depends on a model's name."""
