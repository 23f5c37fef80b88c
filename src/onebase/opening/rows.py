"""Rows by name: a dataset on the Hugging Face Hub is fetched before anything reads it."""

from pathlib import Path

from onebase.data.labelled import Data, Fetched
from onebase.formats.hub import datasets, models


def resolved(data: Data) -> Data:
    """The files of `hf:org/name[@revision][:[config/]split]`; all else as it is. Raises UserError for what is not there or not allowed, DataError for
    a split that is not there or has to be named."""
    if not isinstance(data, (str, Path)) or not models.is_name(data):
        return data
    paths, source = datasets.fetch(data)
    return Fetched(tuple(paths), source)
