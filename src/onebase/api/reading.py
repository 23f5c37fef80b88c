"""The understanding half of `Base`: embeddings, classes, scores, spans and transcripts of texts, images and audio."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onebase.base.head import Pooling
from onebase.engine import image_features as images
from onebase.engine.answers import (
    Answer,
    Ranked,
    labels,
    of_task,
    ranked,
    rewards,
    spans,
    values,
    vectors,
)
from onebase.engine.contacts import predicted_contacts
from onebase.engine.features import remembering
from onebase.engine.image_search import TEMPLATE, FoundImage, find, probabilities
from onebase.engine.labels import Label, labelled
from onebase.engine.passages import Extracted, extracted
from onebase.engine.prompter import Given
from onebase.engine.segmenting import Masks, segmented
from onebase.engine.speech import Transcriber
from onebase.engine.text_index import Index, LastTexts, Near, Row
from onebase.engine.transcribing import Transcript, heard, transcribe
from onebase.errors import UserError
from onebase.methods.bound import Bound
from onebase.methods.spans import Span
from onebase.modality.media import MEDIA

if TYPE_CHECKING:
    from PIL.Image import Image


class Understanding(Bound):
    """Predictions about texts, images and audio."""

    _ears: Transcriber | None = None
    _last: LastTexts | None = None

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> Tensor:
        """Next-token logits after each of `ids`, float32 [T, V]."""
        return self.loaded.model.logits(self._ids_BT(ids), self.routing)[0].cpu()

    @torch.no_grad()
    def hidden(self, ids: Sequence[int]) -> Tensor:
        """Last hidden states, float32 [T, D]."""
        return self.loaded.model.hidden(self._ids_BT(ids), routing=self.routing).hidden[0].float().cpu()

    def embed(self, texts: Sequence[str], *, pooling: Pooling | None = None) -> Tensor:
        """One embedding per text, float32 [N, D]. The base's own pooling is used (sentence-transformers; CLIP and SigLIP, where images are in the
        same space), or that of an adapter of task embed, else the mean of the hidden states. pooling: mean, last or both instead. Long texts are
        truncated at the end, or as the adapter's option `long` specifies."""
        return vectors(self, texts, pooling)

    def nearest(self, query: str, texts: Sequence[str], *, top: int | None = None) -> list[Near]:
        """Texts ranked by similarity to a query, the nearest first (`text`, `score`: cosine of the embeddings of `embed`). The embeddings of the
        last list of texts are cached; for more texts, or on disk, see `index`. Raises UserError."""
        self._last = self._last or LastTexts(self, self.embed)
        return self._last.nearest(query, texts, top)

    def index(self, rows: Iterable[Row | str] = (), *, path: str | Path | None = None) -> Index:
        """An index of texts, or rows with a column `text`, embedded once (`search(query, top)`, `add(rows)`, `save(path)`). Search is exact,
        suitable for up to a million texts. path: start from the folder of an index of this base and adapter. Raises UserError."""
        index = Index(self, self.embed) if path is None else Index.load(path, self, self.embed)
        index.add(rows)
        return index

    def remembering(self) -> AbstractContextManager[None]:
        """Cache features inside `with base.remembering():`, so that many heads on the same texts cost little more than one.

        The cache takes four vectors of memory per text. Raises UserError at the end of the block if the base's weights changed in it."""
        return remembering(self._loaded)

    def classify(self, texts: Sequence[Given]) -> list[Label]:
        """The class of each text; for a saved prompt with other variables, of each row with their values. Raises UserError without an
        adapter that classifies."""
        return labels(self, texts)

    def predict(self, texts: Sequence[str]) -> list[float]:
        """The predicted value of each text, in the units of the training data. Raises UserError without an adapter of task regress, DataError for
        a text that the adapter's option `long` refuses."""
        return values(of_task(self, "regress", "gives numbers"), list(texts))

    def reward(self, answers: Sequence[Answer]) -> list[float]:
        """The reward of each answer: a pair (prompt, answer), the prompt a text or messages, or a single text. Larger is better; only differences
        are meaningful. Raises UserError without an adapter of task reward, DataError for an answer beyond the context."""
        return rewards(of_task(self, "reward", "rates answers"), list(answers))

    def rerank(self, query: str, texts: Sequence[str], *, top: int | None = None) -> list[Ranked]:
        """The texts ranked by relevance to a query, the best first (`index` in `texts`, `score`, `text`). top: maximum number of results. Raises
        UserError without an adapter of task rerank (a cross-encoder)."""
        return ranked(of_task(self, "rerank", "reranks"), query, texts, top)

    def extract(self, question: str, context: str, *, top: int = 1) -> list[Extracted]:
        """The likeliest spans of a text that answer a question, the best first (`text`, `start`, `end`: characters, `score`: a probability). top: number
        of spans. A text beyond the context is read in windows. Raises UserError without an adapter of task extract."""
        return extracted(of_task(self, "extract", "finds answers in texts"), [(question, context)], top)[0]

    def tag(self, texts: Sequence[str]) -> list[list[Span]]:
        """The labelled spans of each text (`start`, `end`, `label`: characters, end exclusive), in order of position. Raises UserError without an
        adapter of task tag, DataError for a text that the adapter's option `long` refuses."""
        return spans(of_task(self, "tag", "tags"), list(texts))

    def contacts(self, sequence: str) -> Tensor:
        """Probabilities that two residues of a protein are in contact (C-beta atoms within 8 angstrom), float32 [L, L]: by an adapter of task contacts, or
        else from the base's attention maps by the regression that it came with (ESM-2; docs/proteins.md). Raises UserError where there is neither,
        DataError for a sequence that is empty or too long."""
        return predicted_contacts(self, sequence)

    def embed_images(self, paths: images.Paths) -> Tensor:
        """One embedding per image file, float32 [N, D], with the base's pooling (docs/images.md). Raises DataError naming a file that cannot be
        read, ConfigError for a base without an image codec."""
        return images.vectors(self.loaded, paths, self.routing)

    def classify_images(
        self, paths: images.Paths, labels: Sequence[str] | None = None, *, template: str = TEMPLATE
    ) -> list[Label]:
        """The class of each image file, from the attached adapter or the base's own classes.

        labels: class names to choose from instead (zero-shot), for a base with one space for images and texts; each is inserted into `template`.
        Raises DataError naming a file that cannot be read, UserError for a base and adapter without image classes."""
        on = self._attached
        if labels is not None:
            return labelled(labels, probabilities(self.loaded, paths, labels, template, self.routing))
        names, logp_NL = images.scores(
            self.loaded, on.config if on else None, on.name if on else "", paths, self.routing
        )
        return labelled(names, logp_NL.exp())

    def segment(self, image: "str | Path | Image", *, points: Any = None, boxes: Any = None) -> Masks:
        """The masks of objects in a picture (a file, or a Pillow image), bool [N, H, W] of its size, each with a score from 0 to 1: the predicted
        intersection over union.

        points: clicks on one object, [(x, y), ...] in pixels, (x, y, 0) for one beside it; or a list of such lists, one for each object. boxes:
        (x0, y0, x1, y1), one for each object. Raises UserError for a base without an adapter (or a head of its own) of task segment, and for a
        prompt that is outside the picture; DataError naming a file that cannot be read."""
        return segmented(self, image, points, boxes)

    def search(self, query: str, paths: images.Files, *, top: int | None = None) -> list[FoundImage]:
        """Image files ranked by similarity to a text, the nearest first (`path`, `score`: the cosine). Raises DataError naming a file that
        cannot be read, UserError for a base without one space for images and texts."""
        return find(self.loaded, query, paths, top, self.routing)

    def transcribe(
        self,
        path: str | Path,
        *,
        language: str | None = None,
        task: str | None = None,
        timestamps: bool = False,
        temperatures: Sequence[float] | None = None,
        condition: bool = True,
    ) -> Transcript:
        """Transcribe an audio file: WAV, or FLAC, OGG and MP3 with the extra `audio`.

        language: a code, detected by default. task: transcribe, or translate (into English). timestamps: predict the times of each segment
        (always on for audio longer than the base's window). temperatures: tried in turn until the text passes the quality checks; (0.0,) is
        greedy only. condition: condition each window on the previous text (docs/speech.md). Raises UserError.
        """
        if MEDIA["audio"].codec in self.loaded.model.patches:
            if language or task or timestamps or temperatures:
                raise UserError(
                    "this base knows no languages, tasks, times and temperatures of speech",
                    "leave them out, or use Whisper",
                )
            return heard(self.loaded, path, self.routing)
        if self._ears is None:
            self._ears = Transcriber(self.loaded, self.routing)
        return transcribe(
            self._ears,
            path,
            language=language,
            task=task,
            timestamps=timestamps,
            temperatures=temperatures,
            condition=condition,
        )

    def _ids_BT(self, ids: Sequence[int]) -> Tensor:
        context, vocab = self.config.text.context, self.config.text.vocab_size
        if not 0 < len(ids) <= context:
            raise UserError(f"{len(ids)} token ids were given", f"give 1 to {context}, the base's context")
        bad = next((i for i in ids if not 0 <= int(i) < vocab), None)
        if bad is not None:
            raise UserError(f"token id {bad} is not in the vocabulary", f"ids go from 0 to {vocab - 1}")
        return torch.tensor([list(ids)], device=self.loaded.model.device)
