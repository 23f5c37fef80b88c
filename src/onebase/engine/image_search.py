"""Images and texts in a common vector space: vectors, zero-shot classification by label names, and image search by text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.link_modules import PairLink
from onebase.engine.features import embeddings
from onebase.engine.image_features import Files, Paths, vectors
from onebase.errors import ArtifactError, UserError
from onebase.model.proj import AdapterRouting

TEMPLATE = "a photo of a {label}"


@dataclass(frozen=True)
class FoundImage:
    """An image and its cosine similarity to the query, at most 1."""

    path: Path
    score: float


def the_pair(base: LoadedBase) -> PairLink:
    """The link to the common space. Raises UserError if the base has none."""
    pair = base.model.link("pair")
    assert isinstance(pair, PairLink)
    return pair


@torch.no_grad()
def text_vectors(base: LoadedBase, texts: Sequence[str], routing: AdapterRouting | None = None) -> Tensor:
    """Unit vectors of texts in the common space, fp32 [N, E] on the CPU; long texts are cut to the context. Raises ArtifactError for a tokenizer that
    does not add the end token that the base pools at."""
    pair, words = the_pair(base), base.codec.tokenizer
    ends = pair.cfg.pool.ends
    if ends is not None and words.framed([])[-1:] != [ends]:
        raise ArtifactError(
            f"this base pools a text at its end token {ends}, which its tokenizer does not add",
            "use the tokenizer that belongs to the model",
        )
    pooled_ND = embeddings(base, list(texts), pair.cfg.pool, routing)
    return pair.placed(pooled_ND.to(base.model.device), "dst").cpu()


@torch.no_grad()
def probabilities(
    base: LoadedBase,
    paths: Paths,
    labels: Sequence[str],
    template: str = TEMPLATE,
    routing: AdapterRouting | None = None,
) -> Tensor:
    """Probability of each label for each image, [N, L]: over all labels (CLIP), or for each label independently (SigLIP).

    template: the text for a label, containing {label}. Raises UserError for invalid labels or an invalid template.
    """
    texts = written_out(labels, template)
    pair, device = the_pair(base), base.model.device
    images_NE = vectors(base, paths, routing).to(device)
    texts_LE = text_vectors(base, texts, routing).to(device)
    return pair.probabilities(pair.scores(images_NE, texts_LE)).cpu()


def written_out(labels: Sequence[str], template: str = TEMPLATE) -> list[str]:
    """The text of each label. Raises UserError."""
    if isinstance(labels, str) or not labels or not all(isinstance(x, str) and x.strip() for x in labels):
        raise UserError(f"labels are {labels!r}", 'give a list of names, such as ["cat", "dog"]')
    if len(set(labels)) != len(labels):
        twice = next(x for x in labels if list(labels).count(x) > 1)
        raise UserError(f"the label {twice!r} is given twice", "give each label once")
    if "{label}" not in template:
        raise UserError(
            f"the template {template!r} does not contain {{label}}", "write {label} where the label goes"
        )
    return [template.replace("{label}", x) for x in labels]


def find(
    base: LoadedBase,
    query: str,
    paths: Files,
    top: int | None = None,
    routing: AdapterRouting | None = None,
) -> list[FoundImage]:
    """The images by similarity to the query, nearest first; only the `top` nearest, if given. Raises UserError, DataError."""
    if not isinstance(query, str) or not query.strip():
        raise UserError(f"the query is {query!r}", "give a text, such as 'a red house by the sea'")
    if top is not None and top < 1:
        raise UserError(f"top is {top}", "give at least 1, or omit it for all")
    query_E = text_vectors(base, [query], routing)[0]
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    scores_N = vectors(base, files, routing) @ query_E
    order = scores_N.argsort(descending=True, stable=True).tolist()
    return [FoundImage(Path(files[i]), float(scores_N[i])) for i in order[:top]]
