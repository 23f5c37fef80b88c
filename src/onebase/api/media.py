"""The media half of `Base`: what an image or a sound is, and images and sounds made of text (docs/native.md)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onebase.methods.bound import Bound

if TYPE_CHECKING:
    from PIL.Image import Image


class MediaAnswers(Bound):
    """Reads and makes media, by a base of patches."""

    def caption(
        self, images: str | Path | Sequence[str | Path], *, prompt: str = "", max_tokens: int = 128
    ) -> Any:
        """The text that the base writes behind an image file: a str, or a list of them for a list. prompt: how the text begins. Raises UserError for a
        base that reads no images beside text, DataError naming a file."""
        from onebase.engine.media_answers import described

        each = [images] if isinstance(images, str | Path) else list(images)
        found = described(self.loaded, "image", each, prompt, max_tokens, self.routing)
        return found[0] if isinstance(images, str | Path) else found

    def draw(
        self,
        prompt: str,
        n: int = 1,
        *,
        steps: int = 25,
        guidance: float = 2.0,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        init: "str | Path | Image | None" = None,
        mask: "str | Path | Image | None" = None,
        strength: float = 0.7,
        solver: Literal["euler", "heun"] = "euler",
    ) -> "list[Image]":
        """`n` pictures of a text (of a class, by a diffusion transformer: docs/drawing.md), as Pillow images; the same seed draws the same pictures.

        steps, solver: of the flow (`heun` reads twice a step). guidance: how strictly the prompt is followed; 1 is the base as it is. size: width and
        height in pixels (default: the base chooses). init: a picture to start from, of which `strength` is drawn anew; with mask, only where the
        mask is white. Raises UserError for a base that draws nothing.
        """
        from onebase.engine.drawing import Drawing
        from onebase.engine.media_answers import draw

        how = Drawing(steps, guidance, seed, solver)
        return draw(
            self.loaded,
            prompt,
            n,
            how,
            size=size,
            init=init,
            mask=mask,
            strength=strength,
            routing=self.routing,
        )

    def speak(
        self,
        text: str,
        *,
        seconds: float | None = None,
        steps: int = 25,
        guidance: float = 2.0,
        seed: int = 0,
    ) -> tuple[np.ndarray, int]:
        """The text as sound: samples fp32 [N] from -1 to 1, and their rate. seconds: default, the base chooses. Raises UserError for a base that makes no
        sound."""
        from onebase.engine.drawing import Drawing
        from onebase.engine.media_answers import speak

        return speak(self.loaded, text, Drawing(steps, guidance, seed), seconds=seconds, routing=self.routing)
