"""The transformer: one configurable `Trunk`. No modality, no loss, no task."""
