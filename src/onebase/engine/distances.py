"""Distances and contacts of a protein's residues, by the head on pairs of an adapter of task contacts. L residues, D width, C bins."""

from collections.abc import Sequence

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.pairs import PairHead
from onebase.data.structures import NEAR
from onebase.engine.answers import head_of, token_states
from onebase.engine.features import given_tokens
from onebase.errors import DataError
from onebase.methods.folder import Attached
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting


def residue_tokens(base: LoadedBase, sequence: str, most: int | None = None) -> Tokens:
    """A protein as the base reads whole texts. most: residues at most (None: as the context takes). Raises DataError for a sequence that is empty, too
    long, or not read as one token per residue."""
    tok, sequence = base.codec.tokenizer, sequence.strip()
    inner = tok.encode(sequence)
    room = base.model.cfg.text.context - len(tok.framed([]))
    check_residues(sequence, len(inner), room if most is None else min(most, room))
    return given_tokens(tok.framed(inner), 0)


def check_residues(sequence: str, tokens: int, most: int) -> None:
    """Raises DataError for a sequence that is empty, of more residues than `most`, or of as many tokens as not residues."""
    if not tokens:
        raise DataError("the sequence is empty", "give the letters of a protein, for example MKTAYIAK")
    if tokens != len(sequence):
        raise DataError(
            f"this base reads the {len(sequence)} residues as {tokens} tokens, and contacts need one token for each",
            "use a protein base, or remove characters that are no residues",
        )
    if tokens > most:
        raise DataError(
            f"the sequence has {tokens:,} residues, and contacts are predicted for at most {most:,}",
            "cut it into domains",
        )


def residue_states(base: LoadedBase, texts: Sequence[Tokens], routing: AdapterRouting | None) -> list[Tensor]:
    """The state of each residue of each protein, fp32 [L, D] on the CPU."""
    before, around = len(base.codec.tokenizer.begun([])), len(base.codec.tokenizer.framed([]))
    return [
        h_TD[before : before + len(t) - around]
        for h_TD, t in zip(token_states(base, texts, routing), texts, strict=True)
    ]


@torch.no_grad()
def distogram(on: Attached, texts: Sequence[Tokens]) -> list[Tensor]:
    """Probabilities of the bins of each protein's pairs, fp32 [C, L, L] on the CPU."""
    head = head_of(on)
    assert isinstance(head, PairHead)
    states = residue_states(on.base, texts, on.routing)
    return [head.pairs(h_LD[None].to(on.base.model.device))[0].softmax(0).cpu() for h_LD in states]


def contacts_of(on: Attached, texts: Sequence[Tokens]) -> list[Tensor]:
    """Probabilities of contact, fp32 [L, L]: of the bins that end at 8 angstrom or before."""
    assert on.config.head is not None
    near = sum(edge <= NEAR for edge in on.config.head.bins)
    return [p_CLL[:near].sum(0) for p_CLL in distogram(on, texts)]
