"""Shared code of objectives with a head on texts: batches of one text per row, pooling, and the head's outputs.

B texts, T time, D width, P pooled features, C outputs.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.head import Pooling
from onebase.base.model import BaseModel
from onebase.base.patches import with_media
from onebase.modality.media import as_patches
from onebase.modality.text.pooling import EmbeddingConfig, pooled
from onebase.modality.text.sample import Tokens
from onebase.model.mask import Cols, mixed
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Row, TrunkInput, count_sources
from onebase.objective.padding import states

How = Pooling | EmbeddingConfig
"""A pooling, or the config of a text's vector."""


def pool(h_BTD: Tensor, doc_BT: Tensor, how: How) -> Tensor:
    """One fp32 vector per text, [B, P]: its last token's state, the mean over its tokens, both concatenated, or these with each channel's
    maximum over its tokens; its first token's state; or the vector of an embedding config."""
    if isinstance(how, EmbeddingConfig):
        return pooled(h_BTD, doc_BT >= 0, how)
    valid_BT1 = (doc_BT >= 0)[..., None]
    h_BTD = h_BTD.float()
    if how == "cls":
        return h_BTD[:, 0]
    last_B = valid_BT1[..., 0].sum(1) - 1
    last_BD = h_BTD[torch.arange(len(last_B), device=h_BTD.device), last_B]
    if how == "last":
        return last_BD
    mean_BD = (h_BTD * valid_BT1).sum(1) / valid_BT1.sum(1).clamp(min=1)
    if how == "mean":
        return mean_BD
    if how == "both":
        return torch.cat((last_BD, mean_BD), -1)
    most_BD = h_BTD.masked_fill(~valid_BT1, -torch.inf).amax(1)
    return torch.cat((last_BD, mean_BD, most_BD), -1)


def narrowed(x_NP: Tensor, how: Pooling) -> Tensor:
    """The result of `pool` with `how`, taken from its result with "all"."""
    width = x_NP.shape[1] // 3
    part = {
        "last": slice(0, width),
        "mean": slice(width, 2 * width),
        "both": slice(0, 2 * width),
        "all": slice(None),
    }
    return x_NP[:, part[how]]


def by_text(x_BP: Tensor, read: TrunkInput, how: How) -> Tensor:
    """The mean over each text's windows of pooled rows, [N, P]; vectors of length 1 are normalised again."""
    return x_BP if read.text_B is None else mean_of_windows(x_BP, read.text_B, how)


def mean_of_windows(x_BP: Tensor, text_B: Tensor, how: How) -> Tensor:
    """`by_text` from the number of each row's text; each number from 0 to N - 1 has at least one row."""
    rows_N = text_B.bincount()
    x_NP = x_BP.new_zeros(len(rows_N), x_BP.shape[1]).index_add(0, text_B, x_BP) / rows_N[:, None]
    return F.normalize(x_NP, dim=-1) if isinstance(how, EmbeddingConfig) and how.normalise else x_NP


def text_batch(texts: Sequence[Tokens]) -> TrunkInput:
    """Texts, or their windows, as rows of one document each, padded on the right, with their media in their places."""
    windows = [(n, part) for n, t in enumerate(texts) for part in t.parts]
    text_B = torch.tensor([n for n, _ in windows]) if len(windows) > len(texts) else None
    texts = [part for _, part in windows]
    lengths = torch.tensor([len(t.ids) for t in texts])
    length = int(lengths.max())
    ids_BT = torch.zeros(len(texts), length, dtype=torch.long)
    for b, t in enumerate(texts):
        ids_BT[b, : len(t.ids)] = torch.from_numpy(t.ids.astype("int64"))
    types_BT = torch.zeros_like(ids_BT) if any(t.types is not None for t in texts) else None
    for b, t in enumerate(texts):
        if types_BT is not None and t.types is not None:
            types_BT[b, : len(t.ids)] = torch.from_numpy(t.types.astype("int64"))
    cols = Cols.padded(lengths, length)
    patches = [as_patches(t.media) for t in texts]
    if not any(patches):
        return TrunkInput(ids_BT, cols, types_BT=types_BT, text_B=text_B)
    cols, media = with_media(cols, patches, [0] * len(texts))
    return TrunkInput(ids_BT, cols, mixed(), types_BT, text_B, media)


def one_text_batch(rows: Sequence[Row], name: str, targets: Tensor, count: int) -> Batch:
    """Rows of one text each, with the targets of the loss `name`."""
    texts = [row[0] for row in rows]
    return Batch(
        inputs={"text": text_batch(texts)},
        targets={name: targets},
        counts={name: count},
        ids=tuple(t.id for t in texts),
        sources=count_sources(rows),
    )


def outputs(base: BaseModel, batch: Batch, head: str, pooling: How, routing: AdapterRouting | None) -> Tensor:
    """The head's outputs for each text, [B, C]."""
    read = batch.inputs["text"]
    h_BTD = states(base, read, routing)
    z_BC: Tensor = base.heads[head](text_features(h_BTD, read, pooling))
    return z_BC


def text_features(h_BTD: Tensor, read: TrunkInput, how: How) -> Tensor:
    """Features of each text, fp32 [N, P]; for a text in windows their mean."""
    return by_text(pool(h_BTD, read.cols.doc, how), read, how)
