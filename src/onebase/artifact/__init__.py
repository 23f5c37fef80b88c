"""Folders that can be trusted: hashing, the manifest, the record, tensors on disk."""
