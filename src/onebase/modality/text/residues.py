"""The tokenizer of proteins: one token per residue, with the alphabet and order of ESM-1b and ESM-2."""

from __future__ import annotations

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, processors

from onebase.modality.text.roles import Roles
from onebase.modality.text.tokenizer import Tokenizer

CLS, PAD, EOS, UNK, MASK = "<cls>", "<pad>", "<eos>", "<unk>", "<mask>"
ALPHABET = (CLS, PAD, EOS, UNK, *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", MASK)
"""Tokens in the order of their ids. X is any residue, B, Z, U and O are rare ones, `.` and `-` are gaps."""
ROLES = Roles(
    bos=CLS,
    eos=EOS,
    pad=PAD,
    unk=UNK,
    stop=(EOS,),
    before=(CLS,),
    after=(EOS,),
    others={"cls_token": CLS, "mask_token": MASK},
)


def residue_tokenizer() -> Tokenizer:
    """A tokenizer of 33 tokens; white space is dropped, and any other character is `<unk>`."""
    vocab = {token: i for i, token in enumerate(ALPHABET)}
    inner = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    cut = pre_tokenizers.Split(Regex("."), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), cut])
    inner.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {EOS}",
        pair=f"{CLS} $A {EOS} $B {EOS}",
        special_tokens=[(CLS, vocab[CLS]), (EOS, vocab[EOS])],
    )
    inner.add_special_tokens([token for token in ALPHABET if token.startswith("<")])
    return Tokenizer(inner, ROLES)
