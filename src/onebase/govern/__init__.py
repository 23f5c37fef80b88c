"""What an artifact is made of: the store, lineage, verification and the printed record."""
