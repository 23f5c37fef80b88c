"""The part of `Base` that reads: texts, images and sound into vectors, classes, numbers, spans and words."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

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
from onebase.engine.features import remembering
from onebase.engine.image_search import TEMPLATE, FoundImage, find, probabilities
from onebase.engine.labels import Label, labelled
from onebase.engine.passages import Extracted, extracted
from onebase.engine.prompter import Given
from onebase.engine.speech import Transcriber
from onebase.engine.text_index import Index, LastTexts, Near, Row
from onebase.engine.transcribing import Transcript, transcribe
from onebase.errors import UserError
from onebase.methods.bound import Bound
from onebase.methods.spans import Span


class Understanding(Bound):
    """Says something of what it is given."""

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
        """One vector a text, float32 [N, D]: as the base was made to give them (sentence-transformers; CLIP and SigLIP, where images are in
        the same space) or as an adapter of task embed makes them, else the mean of its hidden states; `pooling` asks for the mean, last or both of them. Long texts
        are cut at their end, or as the adapter says (`long`)."""
        return vectors(self, texts, pooling)

    def nearest(self, query: str, texts: Sequence[str], *, top: int | None = None) -> list[Near]:
        """Texts by how near they are to another, the nearest first (`text`, `score`: the cosine of what `embed` gives). The vectors of the texts that it was
        last asked about are kept; to hold more, or on the disk, see `index`. Raises UserError."""
        self._last = self._last or LastTexts(self, self.embed)
        return self._last.nearest(query, texts, top)

    def index(self, rows: Iterable[Row | str] = (), *, path: str | Path | None = None) -> Index:
        """Texts, or rows with a column `text`, embedded once to be searched often (`search(query, top)`, `add(rows)`, `save(path)`); exact, right up to a
        million texts. path: go on from the folder of an index, which must be of this base and adapter. Raises UserError."""
        index = Index(self, self.embed) if path is None else Index.load(path, self, self.embed)
        index.add(rows)
        return index

    def remembering(self) -> AbstractContextManager[None]:
        """Inside `with base.remembering():` a text is read once, so that many heads on the same texts cost little more than one.

        It takes four vectors of memory a text. Raises UserError at the end of the block if the base's weights changed in it."""
        return remembering(self._loaded)

    def classify(self, texts: Sequence[Given]) -> list[Label]:
        """The class of each text; for a saved prompt with other variables, of each row with their values. Raises UserError without a
        classifying adapter."""
        return labels(self, texts)

    def predict(self, texts: Sequence[str]) -> list[float]:
        """The number of each text, in the units of the data that the adapter learnt from. Raises UserError without an adapter of task
        regress, DataError for a text that the adapter is to refuse (`long`)."""
        return values(of_task(self, "regress", "gives numbers"), list(texts))

    def reward(self, answers: Sequence[Answer]) -> list[float]:
        """How good each answer is: (prompt, answer), the prompt a text or messages, or a text alone. Larger is better, only differences mean
        something. Raises UserError without an adapter of task reward, DataError for an answer beyond the context."""
        return rewards(of_task(self, "reward", "rates answers"), list(answers))

    def rerank(self, query: str, texts: Sequence[str], *, top: int | None = None) -> list[Ranked]:
        """The texts in the order in which they answer a query (`index` in what was given, `score`, `text`), the best first; `top`: so many of
        them. Raises UserError without an adapter of task rerank (a cross-encoder)."""
        return ranked(of_task(self, "rerank", "reranks"), query, texts, top)

    def extract(self, question: str, context: str, *, top: int = 1) -> list[Extracted]:
        """The likeliest parts of a text that answer a question, the best first (`text`, `start`, `end`: characters, `score`: a probability); `top`: so many.
        A text beyond the context is read in windows. Raises UserError without an adapter of task extract."""
        return extracted(of_task(self, "extract", "finds answers in texts"), [(question, context)], top)[0]

    def tag(self, texts: Sequence[str]) -> list[list[Span]]:
        """The labelled spans in each text (`start`, `end`, `label`: characters, end exclusive), in its order. Raises UserError without an
        adapter of task tag, DataError for a text that the adapter is to refuse (`long`)."""
        return spans(of_task(self, "tag", "tags"), list(texts))

    def embed_images(self, paths: images.Paths) -> Tensor:
        """One vector an image file, float32 [N, D], as the base pools them (docs/images.md). Raises DataError naming a file that cannot be
        read, ConfigError for a base that sees no images."""
        return images.vectors(self.loaded, paths, self.routing)

    def classify_images(
        self, paths: images.Paths, labels: Sequence[str] | None = None, *, template: str = TEMPLATE
    ) -> list[Label]:
        """The class of each image file, by the adapter on the base or by the base's own classes.

        labels: names to choose from instead, for a base that has one space for images and texts; each is put into `template`. Raises
        DataError naming a file that cannot be read, UserError where nothing classifies images."""
        on = self._attached
        if labels is not None:
            return labelled(labels, probabilities(self.loaded, paths, labels, template, self.routing))
        names, logp_NL = images.scores(
            self.loaded, on.config if on else None, on.name if on else "", paths, self.routing
        )
        return labelled(names, logp_NL.exp())

    def search(self, query: str, paths: images.Paths, *, top: int | None = None) -> list[FoundImage]:
        """Image files by how near they are to a text, the nearest first (`path`, `score`: the cosine). Raises DataError naming a file
        that cannot be read, UserError for a base without one space for images and texts."""
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
        """Write down a sound file: WAV, or FLAC, OGG and MP3 with the extra `audio`.

        language: a code, detected when not given. task: transcribe, or translate (into English). timestamps: let the base say when
        each piece was said (a sound longer than its window always has them). temperatures: tried in turn while the text is not
        believed, (0.0,) is greedy alone; condition: show it the text before (docs/speech.md). Raises UserError.
        """
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
