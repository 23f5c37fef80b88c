"""The transformer room: one `Trunk`, configured. No modality, no loss, no task."""
