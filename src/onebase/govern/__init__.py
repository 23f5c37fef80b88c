"""What an artifact is made of: the store, lineage, verification and the record in print and as a page."""
