"""Text: tokenizer, chat template, samples."""

from onebase.codec.text.codec import TextCodec
from onebase.codec.text.ledger import Finding, Ledger, check_tokens, label_ledger, token_ledger
from onebase.codec.text.roles import Roles
from onebase.codec.text.sample import (
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
from onebase.codec.text.shown import LedgerRow, ledger_rows, render_rows
from onebase.codec.text.template import ChatTemplate
from onebase.codec.text.tokenizer import Tokenizer

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
