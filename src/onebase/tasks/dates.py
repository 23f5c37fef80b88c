"""The date of a run that learns: when it began, however often it is gone on with."""

from pathlib import Path

from onebase.artifact.files import read_manifest
from onebase.train.checkpoint import list_checkpoints


def began(resume: str | Path | None) -> str | None:
    """The date of the run whose state of learning is in a folder; None where none is."""
    found = [] if resume is None else list_checkpoints(Path(resume) / "checkpoints")
    identity = read_manifest(found[-1])["facts"].get("identity") if found else None
    date = identity.get("date") if isinstance(identity, dict) else None
    return date if isinstance(date, str) else None
