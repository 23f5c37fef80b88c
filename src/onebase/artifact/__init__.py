"""Artifact folders with verified content: hashes, the manifest, the record, tensors on disk."""
