"""Text: tokenizer, chat template, samples."""

from onebase.codec.text.codec import LedgerRow, TextCodec, check_tokens, ledger, render_ledger
from onebase.codec.text.roles import Roles
from onebase.codec.text.sample import (
    BOS,
    END,
    EOS,
    PAD,
    SPECIALS,
    Message,
    Sample,
    Span,
    Tokens,
    chat_sample,
    completion_sample,
    document_sample,
)
from onebase.codec.text.template import ChatTemplate
from onebase.codec.text.tokenizer import Tokenizer

__all__ = [
    "BOS",
    "END",
    "EOS",
    "PAD",
    "SPECIALS",
    "ChatTemplate",
    "LedgerRow",
    "Message",
    "Roles",
    "Sample",
    "Span",
    "TextCodec",
    "Tokenizer",
    "Tokens",
    "chat_sample",
    "check_tokens",
    "completion_sample",
    "document_sample",
    "ledger",
    "render_ledger",
]
