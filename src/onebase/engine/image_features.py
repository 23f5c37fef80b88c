"""Images as vectors, as classes by the head of the base or of an adapter, and as features for a new head.

N images, D features of a state, T vectors of an image, L classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.artifact.files import sha256_file
from onebase.base.folder import LoadedBase
from onebase.base.head import Head, Read
from onebase.base.link_modules import PairLink
from onebase.engine.features import features as text_features
from onebase.engine.media_prompts import file_tokens
from onebase.engine.scoring import batch_tokens
from onebase.errors import DataError, UserError
from onebase.methods.config import AdapterConfig
from onebase.modality.image.pixels import pixels
from onebase.model.proj import AdapterRouting
from onebase.objective.pictures import picture_features

Source = str | Path | bytes
"""An image file, or its bytes."""
Paths = Source | Sequence[Source]
Files = str | Path | Sequence[str | Path]


def vectors(base: LoadedBase, paths: Paths, routing: AdapterRouting | None) -> Tensor:
    """fp32 [N, D] on the CPU: the codec's pooled features, or unit vectors of the common space if images and texts share one; the mean of the patches by
    a base that reads images as patches.

    Raises DataError naming a file that cannot be read, ConfigError for a base that reads no images.
    """
    if of_patches(base):
        return features(base, paths, "mean", routing)
    link = base.model.cfg.link("pair")
    paired = base.model.link("pair") if link is not None and link.src == "image" else None

    def read(hidden_BTD: Tensor) -> Tensor:
        pooled_BD = base.model.image.pooled(hidden_BTD)
        return paired.placed(pooled_BD, "src") if isinstance(paired, PairLink) else pooled_BD

    return _over(base, paths, read, routing)


def scores(
    base: LoadedBase, adapter: AdapterConfig | None, name: str, paths: Paths, routing: AdapterRouting | None
) -> tuple[tuple[str, ...], Tensor]:
    """(labels, log-probabilities [N, L]) by the head of the adapter or of the base. Raises UserError if neither classifies images."""
    if adapter is not None and adapter.task == "classify":
        if adapter.head is None or adapter.head.reads != "image":
            raise UserError("the adapter classifies texts", "give it texts: base.classify([...])")
        x_NP = features(base, paths, adapter.head.pooling, routing)
        head = base.model.heads[name]
        assert isinstance(head, Head)
        with torch.no_grad():
            z_NL = head(x_NP.to(head.weight_CP.device)).cpu()
        return adapter.head.labels, z_NL.log_softmax(-1)
    labels = () if of_patches(base) else distinct(base.model.cfg.image.classes)
    if not labels:
        raise UserError(
            "neither this base nor an adapter on it classifies images: it has no image classes",
            'train a head: base.adapt(rows of {"image", "label"}, task="classify", method="head")',
        )
    ends = base.model.image
    z_NL = _over(base, paths, lambda h_BTD: ends.scores(ends.pooled(h_BTD)), routing)
    return labels, z_NL.log_softmax(-1)


def classifies_images(base: LoadedBase, adapter: AdapterConfig | None) -> bool:
    """Whether `scores` has classes, of the adapter or of the base."""
    if adapter is not None:
        return adapter.head is not None and adapter.head.reads == "image" and adapter.head.gives == "one"
    return "image" in base.model.cfg.codecs and bool(base.model.cfg.image.classes)


def features(base: LoadedBase, paths: Paths, pooling: Read, routing: AdapterRouting | None) -> Tensor:
    """Features that a head reads, fp32 [N, P] on the CPU (see `picture_features`); on a base of patches those of the image's row in the text trunk."""
    if of_patches(base):
        return text_features(base, [file_tokens(base, "image", f) for f in _files(paths)], pooling, routing)
    return _over(base, paths, lambda h_BTD: picture_features(base.model.image, h_BTD, pooling), routing)


def sees_images(base: LoadedBase, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows contain images: the base reads images, and the rows have the column `image` (or the base reads no texts)."""
    if "image" not in base.model.cfg.codecs:
        return False
    return base.text_codec is None or ("image" in rows[0] and "text" not in rows[0])


def image_paths(rows: Sequence[dict[str, Any]], data: object) -> list[Path]:
    """The column `image` as paths; relative paths in a file of rows start at its folder. Raises DataError for a value that is not a path."""
    folder = Path(data).parent if isinstance(data, (str, Path)) else getattr(data, "folder", Path())
    for i, row in enumerate(rows, 1):
        if not isinstance(row["image"], (str, Path)):
            raise DataError(
                f"row {i}: 'image' is {type(row['image']).__name__}, a path is expected", "fix the row"
            )
    return [folder / row["image"] for row in rows]


def hashed(paths: Sequence[Path], rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows for hashing in a record: the content hash of each image and its label, independent of file paths."""
    return [
        {"image": file_hash(path), "label": str(row["label"])} for path, row in zip(paths, rows, strict=True)
    ]


def file_hash(path: Path) -> str:
    """SHA-256 of an image file. Raises DataError if it cannot be read."""
    try:
        return sha256_file(path)
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}", "check the path") from None


def nearest(vectors_ND: Tensor) -> tuple[Tensor, Tensor]:
    """For each of at least two vectors the index of the nearest other one, and the cosine between them."""
    unit_ND = torch.nn.functional.normalize(vectors_ND.float(), dim=-1)
    near_NN = (unit_ND @ unit_ND.T).fill_diagonal_(-torch.inf)
    cosine_N, at_N = near_NN.max(1)
    return at_N, cosine_N


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Unique names of classes: published lists name two classes "crane" (bird, machine). Later duplicates get their number appended."""
    seen: set[str] = set()
    out = []
    for i, name in enumerate(names):
        out.append(name if name not in seen else f"{name} ({i})")
        seen.add(out[-1])
    return tuple(out)


def of_patches(base: LoadedBase) -> bool:
    """Whether a base reads images as patches in the trunk of its text."""
    return "image_patches" in base.model.patches


def _files(paths: Paths) -> list[Source]:
    files = [paths] if isinstance(paths, (str, Path, bytes)) else list(paths)
    if not files:
        raise UserError("no images were given", "give at least one file")
    if missing := next((p for p in files if not isinstance(p, bytes) and not Path(p).is_file()), None):
        raise DataError(f"{missing}: there is no such file", "give image files")
    return files


@torch.no_grad()
def _over(
    base: LoadedBase, paths: Paths, read: Callable[[Tensor], Tensor], routing: AdapterRouting | None
) -> Tensor:
    """`read` applied to the states of every image, fp32 on the CPU, in input order."""
    model, codec = base.model, base.model.cfg.image
    files = _files(paths)
    tokens = (codec.side // codec.patch) ** 2 + model.image.front
    out = []
    for part in _parts(files, max(1, batch_tokens(model.device) // tokens)):
        hidden_BTD = model.states("image", pixels(part, codec).to(model.device), routing=routing).hidden
        out.append(read(hidden_BTD).float().cpu())
    return torch.cat(out)


def _parts(files: Sequence[Source], size: int) -> Iterator[Sequence[Source]]:
    for i in range(0, len(files), size):
        yield files[i : i + size]
