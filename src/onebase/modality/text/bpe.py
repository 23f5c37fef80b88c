"""Trains a byte-level BPE with the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from onebase.errors import ConfigError
from onebase.modality.text.valid import checked

# GPT-4's pre-tokenisation with numbers split into one or two digits (three waste a small vocabulary; nanochat
# dev/LOG.md).
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
# Llama 3's pattern: llama.cpp knows patterns by name only, and none of them splits numbers as ours does.
PORTABLE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_bpe(
    texts: Iterable[str], vocab_size: int, specials: Sequence[str], portable: bool
) -> tokenizers.Tokenizer:
    """Train the inner tokenizer of `Tokenizer.train`, which documents the arguments. Raises ConfigError when `vocab_size` is too small."""
    minimum = 256 + len(specials)
    if vocab_size < minimum:
        raise ConfigError(
            f"vocab_size {vocab_size} cannot hold 256 bytes and {len(specials)} special tokens",
            f"use at least {minimum}",
        )
    inner = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PORTABLE if portable else PATTERN), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    inner.train_from_iterator(checked(texts), trainer)
    if portable:  # as in Llama 3: a word that is in the vocabulary becomes that one token
        inner.model.ignore_merges = True
    return inner
