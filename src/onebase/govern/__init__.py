"""Provenance of artifacts: the store, lineage, verification, and the record as text or HTML page."""
