"""Text: tokenizer, chat template, samples."""

from onebase.modality.text.codec import TextCodec
from onebase.modality.text.ledger import Finding, Ledger, check_tokens, label_ledger, token_ledger
from onebase.modality.text.roles import Roles
from onebase.modality.text.sample import (
    BOS,
    END,
    EOS,
    PAD,
    SPECIALS,
    Message,
    Sample,
    Segment,
    Tokens,
    chat_sample,
    completion_sample,
    document_sample,
)
from onebase.modality.text.shown import LedgerRow, ledger_rows, render_rows
from onebase.modality.text.template import ChatTemplate
from onebase.modality.text.tokenizer import Tokenizer

__all__ = [
    "BOS",
    "END",
    "EOS",
    "PAD",
    "SPECIALS",
    "ChatTemplate",
    "Finding",
    "Ledger",
    "LedgerRow",
    "Message",
    "Roles",
    "Sample",
    "Segment",
    "TextCodec",
    "Tokenizer",
    "Tokens",
    "chat_sample",
    "check_tokens",
    "completion_sample",
    "document_sample",
    "label_ledger",
    "ledger_rows",
    "render_rows",
    "token_ledger",
]
