"""Contacts of a protein from attention maps, as ESM predicts them (Rao et al., 2021.01.04.425315): symmetric maps of all heads, corrected by their
averages, in a logistic regression.

The kernels of attention return no maps, so these are computed here, for one sequence. B = 1, T tokens, L residues, C maps (blocks times heads).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onebase.base.folder import LoadedBase
from onebase.base.head import ContactHead
from onebase.data.structures import APART, NEAR, Structure, pairs
from onebase.engine.distances import contacts_of, residue_tokens
from onebase.errors import DataError, UserError
from onebase.methods.bound import Bound
from onebase.methods.logistic import solve
from onebase.model.attention import Attention
from onebase.model.proj import AdapterRouting

LONGEST = 2048
"""Residues of the longest sequence: the maps take 4 L^2 bytes each."""
STRENGTH = 8e-4
"""L2 strength of the regression, on standardised maps."""


@torch.no_grad()
def attention_maps(base: LoadedBase, sequence: str, routing: AdapterRouting | None = None) -> Tensor:
    """Attention probabilities between the residues, float32 [C, L, L]: those of the first block's heads first; special tokens are cut off after
    the softmax.

    Raises UserError for a base whose tokens see only earlier ones or whose attention is not a plain softmax, DataError for a sequence that is
    empty, too long, or not read as one token per residue.
    """
    blocks = base.model.cfg.trunks["text"].blocks if "text" in base.model.cfg.trunks else ()
    plain = all(b.attn.softcap is None and b.attn.window is None for b in blocks)
    if (
        not blocks
        or base.model.trunk.cfg.direction != "both"
        or base.model.trunk.relative is not None
        or not plain
    ):
        raise UserError(
            "contacts need an encoder of proteins with plain attention, which this base is not",
            "use ESM-2, or pretrain recipes/protein.yaml (docs/proteins.md)",
        )
    tokenizer = base.codec.tokenizer
    ids = residue_tokens(base, sequence, LONGEST).ids.tolist()
    first, size = len(tokenizer.begun([])), len(ids) - len(tokenizer.framed([]))
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: tuple[object, ...]) -> None:
        assert isinstance(module, Attention)
        x_BTD, rope, _, _, how = args
        q_BTNH, k_BTGH, _ = module._read(x_BTD, rope, how)  # type: ignore[arg-type]
        q_NTH, k_GTH = q_BTNH[0].transpose(0, 1).float(), k_BTGH[0].transpose(0, 1).float()
        k_NTH = k_GTH.repeat_interleave(len(q_NTH) // len(k_GTH), 0)
        maps_NTT = (q_NTH @ k_NTH.transpose(1, 2) * module.scale).softmax(-1)
        kept = slice(first, first + size)
        caught.append(maps_NTT[:, kept, kept])

    hooks = [block.attn.register_forward_pre_hook(catch) for block in base.model.trunk.blocks]  # type: ignore[union-attr]
    try:
        base.model.hidden(torch.tensor([ids], device=base.model.device), routing=routing)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(caught)


def contact_features(maps_CLL: Tensor) -> Tensor:
    """The maps as the regression reads them, float32 [L, L, C]: symmetric, and less the product of their averages (APC)."""
    sym_CLL = maps_CLL + maps_CLL.transpose(1, 2)
    row_CL1 = sym_CLL.sum(2, keepdim=True)
    expected_CLL = row_CL1 * row_CL1.transpose(1, 2) / row_CL1.sum(1, keepdim=True)
    return (sym_CLL - expected_CLL).permute(1, 2, 0)


def predicted_contacts(bound: Bound, sequence: str) -> Tensor:
    """Probabilities of contact between residues, float32 [L, L], symmetric: by an adapter of task contacts, or by the base's regression of contacts. Raises
    UserError for a base with neither, and the errors of `attention_maps`."""
    if (on := bound.attached) is not None and on.task == "contacts":
        return contacts_of(on, [residue_tokens(bound.loaded, sequence, LONGEST)])[0]
    head = bound.loaded.contacts
    if head is None:
        raise UserError(
            "this base has no regression of contacts, and no adapter of task contacts is on it",
            "import an ESM-2 folder that has one, or train an adapter (docs/proteins.md)",
        )
    features_LLC = contact_features(attention_maps(bound.loaded, sequence, bound.routing))
    return (features_LLC @ head.weight_C.to(features_LLC) + head.bias).sigmoid().cpu()


def learnt_contacts(
    base: LoadedBase, structures: Sequence[Structure], routing: AdapterRouting | None = None
) -> ContactHead:
    """The regression of contacts of this base's attention maps, fitted on proteins of known structure: pairs that are 6 residues or more apart. Raises
    DataError for proteins without contacts, and the errors of `attention_maps`."""
    features, near = list[Tensor](), list[Tensor]()
    for structure in structures:
        found_LLC = contact_features(attention_maps(base, structure.sequence, routing)).cpu()
        distances_LL = structure.distances
        i, j = pairs(distances_LL, APART)
        features.append(found_LLC[i, j])
        near.append(torch.from_numpy(distances_LL[i, j] < NEAR))
    return fit_contacts(torch.cat(features), torch.cat(near))


def fit_contacts(features_NC: Tensor, near_N: Tensor) -> ContactHead:
    """The regression that predicts `near` (bool [N]) from features (float32 [N, C]); few proteins suffice (Rao et al. used 20). Raises DataError
    where all pairs are alike."""
    if near_N.all() or not near_N.any():
        raise DataError(
            "the proteins have no contacts, or nothing else", "give structures with 30 residues or more"
        )
    x_NC = features_NC.double()
    mean_C, scale_C = x_NC.mean(0), x_NC.std(0).clamp_min(1e-12)
    w_1C, b_1 = solve((x_NC - mean_C) / scale_C, near_N.double()[:, None], 1, STRENGTH)
    weight_C = w_1C[0] / scale_C
    return ContactHead(weight_C.float(), float(b_1[0] - weight_C @ mean_C))
