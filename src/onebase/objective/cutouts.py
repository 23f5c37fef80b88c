"""Masks learnt from documents of pictures: of a picture and the mask of an object in it, or of cut-outs (pictures with transparency), which meet in
composed pictures.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onebase.base.model import BaseModel
from onebase.draws import Draws
from onebase.errors import DataError
from onebase.modality.image.config import ImageCodecConfig
from onebase.modality.image.pixels import read_cutout, read_picture
from onebase.modality.text.sample import Tokens
from onebase.objective.base import Batch, Losses, Row
from onebase.objective.composing import composed, placed, shape, solid
from onebase.objective.segment import MaskExample, drawn_prompt, mask_batch, prompted_losses

if TYPE_CHECKING:
    from PIL.Image import Image

FINER = 2
"""Pictures are composed at this many times the side that is read, so that edges are smooth."""
SHAPES, OTHERS = 0.3, 3
"""The chance that an object beside the one that is asked for is a drawn shape, and how many of them there are at most."""
KEPT = 2048
"""Cut-outs that are kept decoded, each of at most `FINER` times the side of the base's pictures: 130 MB where that is 64 pixels."""


@dataclass(frozen=True)
class Encoded:
    """A picture of a document that is read when it is needed: the hash of its bytes; the bytes and the name of their file, for messages."""

    digest: str
    read: Callable[[], tuple[bytes, str]]


@dataclass(frozen=True)
class Pictures:
    """The pictures of a document, and its name for messages."""

    name: str
    files: tuple[Encoded, ...]

    @staticmethod
    def of(piece: Tokens) -> "Pictures":
        """Those of a tokenised document."""
        raw = ((m.content.digest, m.content.raw) for m in piece.media)
        return Pictures(f"document {piece.id} ({piece.source})", tuple(Encoded(d, r) for d, r in raw if r))


def cut_out(data: bytes, name: str, side: int) -> "Image | None":
    """The part of a picture that is not transparent, RGBA, at most `side` pixels long; None where nothing is left of it. Raises DataError."""
    thing = read_cutout(data, name)
    ys, xs = np.nonzero(solid(thing))
    if not len(ys):
        return None
    thing = thing.crop((int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1))
    thing.thumbnail((side, side))
    return thing if solid(thing).any() else None


def masked_picture(picture: Encoded, mask: Encoded) -> MaskExample:
    """A picture and its mask: white is the object. Raises DataError for a mask of another size, and for an empty one."""
    (data, name), (white, mask_name) = picture.read(), mask.read()
    image, grey = read_picture(data, name), read_picture(white, mask_name).convert("L")
    if image.size != grey.size:
        raise DataError(
            f"{mask_name} has {grey.width} x {grey.height} pixels, its picture {name} has {image.width} x {image.height}",
            "give a mask of the picture's size",
        )
    found = np.asarray(grey) > 127
    if not found.any():
        raise DataError(f"{mask_name}: no pixel of the mask is white", "white is the object, black is not")
    return MaskExample(image, found)


@dataclass(frozen=True)
class Cutouts:
    """A document of one picture is a cut-out (one without transparency: a card), one of two is a picture and its mask. The cut-outs of a row meet in
    its pictures: each is asked for in one of them, beside others and drawn shapes, in other sizes, places and company each time."""

    head: str
    codec: ImageCodecConfig
    seed: int = 0
    reserve: int = 0
    _kept: "OrderedDict[str, Image | None]" = field(default_factory=OrderedDict, repr=False, compare=False)

    def examples(self, documents: Sequence[Pictures], draws: Draws) -> list[MaskExample]:
        """An example of each document, composed where it is a cut-out. Raises DataError for a document of other than one or two pictures, for one
        that cannot be read, and for a mask that does not fit."""
        side = FINER * self.codec.side
        things = [self._thing(document) for document in documents]
        able = [t for t in things if t is not None]
        out = []
        for document, thing in zip(documents, things, strict=True):
            if len(document.files) == 2:
                with _naming(document):
                    out.append(masked_picture(*document.files))
                continue
            here = [shape(draws, side) if thing is None else placed(thing, draws, side)]
            for _ in range(1 + int(draws.below(OTHERS, 1)[0])):
                if able and draws.uniform(1)[0] >= SHAPES:
                    other = able[int(draws.below(len(able), 1)[0])]
                    here.append(placed(other, draws, side))
                else:
                    here.append(shape(draws, side))
            out.append(composed(here, draws, side))
        return out

    def _thing(self, document: Pictures) -> "Image | None":
        """The cut-out of a document; None for a picture with a mask, and for a cut-out of which nothing is seen."""
        files = document.files
        if len(files) not in (1, 2):
            raise DataError(
                f"{document.name} has {len(files) or 'no'} pictures, and masks are learnt from cut-outs, or from pictures with a mask",
                "give documents of one picture with transparency, or of a picture and its mask (docs/segmentation.md)",
            )
        if len(files) == 2:
            return None
        key = files[0].digest
        if key not in self._kept:
            with _naming(document):
                self._kept[key] = cut_out(*files[0].read(), FINER * self.codec.side)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        examples, prompts = [], []
        for b, row in enumerate(rows):
            draws = Draws(self.seed, "cutouts", first + b)
            found = self.examples([Pictures.of(piece) for piece in row], draws)
            examples += found
            prompts += [drawn_prompt(e.mask, draws) for e in found]
        return mask_batch(examples, prompts, self.codec, rows)

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        return prompted_losses(base, self.head, batch)


@contextmanager
def _naming(document: Pictures) -> Iterator[None]:
    """Errors of files name the document, too: prepared files have no name."""
    try:
        yield
    except DataError as e:
        raise DataError(f"{document.name}: {e.cause}", e.remedy) from None
