"""Data: sources of documents, prepared datasets, token sets, and the order in which training reads them."""

from onebase.data.bad_rows import BadRows, Rows
from onebase.data.dataset import Dataset
from onebase.data.documents import read_source
from onebase.data.labelled import check_labels, deduplicate, read_rows
from onebase.data.order import Order, Row, split
from onebase.data.packing import RowPlan, cut, pack
from onebase.data.prepare import prepare
from onebase.data.sources import Document, SourceConfig
from onebase.data.tokens import TokenSet

__all__ = [
    "BadRows",
    "Dataset",
    "Document",
    "Order",
    "Row",
    "RowPlan",
    "Rows",
    "SourceConfig",
    "TokenSet",
    "check_labels",
    "cut",
    "deduplicate",
    "pack",
    "prepare",
    "read_rows",
    "read_source",
    "split",
]
