"""`Base`: what a user holds. It generates, chats, scores, embeds, adapts and classifies; an adapter changes none of its weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.adapt.folder import Attached, attach
from onebase.api import images, seeing
from onebase.api.adapting import Data, prepared
from onebase.api.adapting.dry import plan_adapt
from onebase.api.exchange import export, read_adapter
from onebase.api.heads import spans, values
from onebase.api.held import Adapter, Label, Span, labelled
from onebase.api.merging import merged
from onebase.api.options import read_options
from onebase.api.pairs import Near, nearest
from onebase.api.planning import Plan
from onebase.api.quantising import quantised
from onebase.api.search import TEMPLATE, Found, chances, find, text_vectors
from onebase.api.texts import classify_scores, embeddings, features, remembering, text_tokens
from onebase.api.transcribing import Transcript, transcribe
from onebase.artifact.record import Record
from onebase.base.config import BaseConfig
from onebase.base.folder import LoadedBase, save_base
from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import UserError
from onebase.generate.engine import generate, stream
from onebase.generate.sampler import Sampling
from onebase.generate.speech import Transcriber
from onebase.model.proj import Active
from onebase.objective.pooled import Pooling
from onebase.train.listen import Listener

__all__ = ["Adapter", "Base", "Label", "Span"]
Message = Mapping[str, Any]


class Base:
    """A base, perhaps with an adapter on it. Made by `onebase.load`, `onebase.pretrain` or `with_adapter`."""

    def __init__(self, loaded: LoadedBase, attached: Attached | None = None) -> None:
        self._loaded = loaded
        self._attached = attached
        self._ears: Transcriber | None = None

    def __repr__(self) -> str:
        with_ = f", adapter={self._attached.name!r}" if self._attached else ""
        return f"Base({self.name!r}, {self.fingerprint[:16]}...{with_})"

    @property
    def loaded(self) -> LoadedBase:
        """The parts: module, codec, record. For extensions; most users need only the methods."""
        return self._attached.base if self._attached else self._loaded

    @property
    def name(self) -> str:
        """What the base calls itself: stated in its recipe, or its folder."""
        stated = self._loaded.record.get("name")
        return str(stated) if stated else self._loaded.path.name if self._loaded.path else "base"

    @property
    def fingerprint(self) -> str:
        """Content hash of the base's weights and config."""
        return self._loaded.fingerprint

    @property
    def record(self) -> Record:
        """The facts of this base."""
        return self._loaded.record

    @property
    def config(self) -> BaseConfig:
        return self._loaded.model.cfg

    @property
    def tokenizer(self) -> Tokenizer:
        """`encode(text) -> list[int]`, `decode(ids) -> str`."""
        return self._loaded.codec.tokenizer

    @property
    def attached(self) -> Attached | None:
        """The adapter on it, if there is one. For extensions."""
        return self._attached

    @property
    def active(self) -> Active | None:
        """How its adapter acts in a forward. For extensions."""
        return self._attached.active if self._attached else None

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        top_p: float = 1.0,
        seed: int | None = None,
        images: Sequence[str | Path] = (),
    ) -> str:
        """Continue `prompt`; greedy at temperature 0. images: files, one for each place in the prompt that the base's image token marks
        (docs/images_and_text.md). Raises UserError when the prompt is longer than the context."""
        sampling = _sampling(max_tokens, temperature, stop, top_p, seed)
        read = self._read(prompt, images)
        return generate(self.loaded, [read.ids], sampling, self.active, inserts=[read.inserts])[0].text

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> str:
        """The assistant's answer to `messages` ({"role", "content"} each), by the base's chat template. A content is text, or a list of
        {"type": "text", "text": ...} and, for a base that sees them, {"type": "image", "image": path}."""
        sampling = _sampling(max_tokens, temperature, stop, top_p, seed)
        read = seeing.told_prompt(self.loaded, messages, self.active)
        return generate(self.loaded, [read.ids], sampling, self.active, inserts=[read.inserts])[0].text

    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        top_p: float = 1.0,
        seed: int | None = None,
        images: Sequence[str | Path] = (),
    ) -> Iterator[str]:
        """The text of `generate` (for a str) or `chat` (for messages), piece by piece as it comes."""
        sampling = _sampling(max_tokens, temperature, stop, top_p, seed)
        read = self._read(prompt, images)
        for pieces in stream(self.loaded, [read.ids], sampling, self.active, [read.inserts]):
            for piece in pieces:
                if piece.text:
                    yield piece.text

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> Tensor:
        """Next-token logits after each of `ids`, float32 [T, V]."""
        return self._model.logits(self._ids_BT(ids), self.active)[0].cpu()

    @torch.no_grad()
    def hidden(self, ids: Sequence[int]) -> Tensor:
        """Last hidden states, float32 [T, D]."""
        return self._model.hidden(self._ids_BT(ids), active=self.active).hidden[0].float().cpu()

    def embed(self, texts: Sequence[str], *, pooling: Pooling | None = None) -> Tensor:
        """One vector a text, float32 [N, D]: as the base was made to give them (sentence-transformers; CLIP and SigLIP, where images are in
        the same space) or as an adapter of task embed makes them, else the mean of its hidden states; `pooling` asks for the mean, last or both of them. Raises DataError for a
        text beyond the context (a base that was made for it cuts long texts)."""
        if pooling is None and self.config.link("pair") is not None:
            return text_vectors(self.loaded, list(texts), self.active)
        learnt = self._attached.config.embedding if self._attached else None
        made = learnt or self._loaded.embedding
        if pooling is None and made is not None:
            return embeddings(self.loaded, list(texts), made, self.active)
        pooling = pooling or "mean"
        before = self._model.leading(self.active, 1)[0]
        read = text_tokens(self.loaded, list(texts), before=before)
        return features(self.loaded, read, pooling, self.active)

    def nearest(self, query: str, texts: Sequence[str], *, top: int | None = None) -> list[Near]:
        """Texts by how near they are to another, the nearest first (`text`, `score`: the cosine of what `embed` gives). Raises UserError."""
        return nearest(self.embed, query, texts, top)

    def remembering(self) -> AbstractContextManager[None]:
        """Inside `with base.remembering():` a text is read once, so that many heads on the same texts cost little more than one.

        It takes three vectors of memory a text. Raises UserError at the end of the block if the base's weights changed in it."""
        return remembering(self._loaded)

    def adapt(
        self,
        data: Data,
        *,
        task: str,
        method: str,
        listeners: Sequence[Listener] = (),
        tell: Any = None,
        test: Data | None = None,
        columns: Mapping[str, str] | None = None,
        **options: object,
    ) -> Adapter:
        """Learn an adapter from `data` (a file, or rows).

        task: classify (rows with text, label; or image, label for a head), complete (prompt, completion) or chat (messages); method: prompt, head, lora, soft, prefix or
        full. Options are those of `AdaptOptions`. The base does not change. Raises UserError.

        Before anything is learnt the token ledger is told to `tell`, and stops what should not be learnt (docs/adaptation.md); `allow`
        names the codes that do not stop it. test: rows (or a file) that must not be among `data`; nothing else is done with them.
        columns: what the data calls a column, by what the task calls it, {"text": "body"}.
        """
        found = read_options(dict(options))
        if self._attached is not None:
            raise UserError(
                "this base has an adapter on it", "adapt the plain base: onebase.load(ref).adapt(...)"
            )
        job, maker = prepared(
            self._loaded,
            data,
            task=task,
            method=method,
            options=found,
            listeners=listeners,
            tell=tell,
            test=test,
            columns=columns,
        )
        return Adapter(maker(job))

    def plan_adapt(
        self,
        data: Data,
        *,
        task: str,
        method: str,
        test: Data | None = None,
        columns: Mapping[str, str] | None = None,
        **options: object,
    ) -> Plan:
        """All that `adapt` does before its first step, and what the rest would take: `facts` and `text`, with rows, labels, the token
        ledger, steps, tokens, memory and time. Nothing is learnt, the base does not change. Raises UserError as `adapt` does."""
        if self._attached is not None:
            raise UserError("this base has an adapter on it", "plan on the plain base: onebase.load(ref)")
        found = read_options(dict(options))
        return plan_adapt(
            self._loaded, data, task=task, method=method, options=found, columns=columns, test=test
        )

    def with_adapter(self, adapter: Adapter | str | Path, name: str = "adapter") -> "Base":
        """This base with an adapter on it (of ours, or a folder of PEFT); the original goes on without. Raises ArtifactError for an adapter of another base."""
        parts = adapter.parts if isinstance(adapter, Adapter) else read_adapter(self._loaded, Path(adapter))
        # A name of its own for each set of tensors: several adapters may sit on one base at a time.
        attached = attach(self._loaded, parts, f"{name}-{parts.fingerprint[4:16]}")
        return Base(self._loaded, attached)

    def merged(self) -> "Base":
        """A base of its own with the adapter's deltas (or replaced weights) in its weights, and both as parents in its record.

        A head or a prompt is not a change of weights and stays behind. Where the base shares one matrix between its ends and the
        adapter has rows of tokens, which differ for the two, the merged base has two. Raises UserError without an adapter that
        has any weights.
        """
        if self._attached is not None and self._attached.method in ("soft", "prefix"):
            raise UserError(
                f"a {self._attached.method} adapter stands before the text: it has nothing that could go into the base's weights",
                "use the adapter beside the base (with_adapter, onebase serve), or make a lora or full one",
            )
        if self._attached is None or self._attached.method not in ("lora", "full"):
            raise UserError("there is no adapter with weights to merge", "merge a lora or full adapter")
        return Base(merged(self._loaded, self._attached, self.name))

    def classify(self, texts: Sequence[str]) -> list[Label]:
        """The class of each text. Raises UserError without a classifying adapter."""
        if self._attached is None or self._attached.task != "classify":
            raise UserError(
                "this base has no adapter that classifies",
                "make one with base.adapt(data, task='classify', method='head') and use base.with_adapter(it)",
            )
        labels, logp = classify_scores(
            self.loaded, self._attached.config, self._attached.name, list(texts), self.active
        )
        head = self._attached.config.head
        return labelled(labels, logp.exp(), many=head is not None and head.gives == "many")

    def predict(self, texts: Sequence[str]) -> list[float]:
        """The number of each text, in the units of the data that the adapter learnt from. Raises UserError without an adapter of task
        regress, DataError for a text beyond the context."""
        return values(self._of_task("regress", "gives numbers"), list(texts))

    def tag(self, texts: Sequence[str]) -> list[list[Span]]:
        """The labelled spans in each text (`start`, `end`, `label`: characters, end exclusive), in its order. Raises UserError without an
        adapter of task tag, DataError for a text beyond the context."""
        return spans(self._of_task("tag", "tags"), list(texts))

    def _of_task(self, task: str, does: str) -> Attached:
        if self._attached is None or self._attached.task != task:
            raise UserError(
                f"this base has no adapter that {does}",
                f"make one with base.adapt(data, task='{task}', method='head') and use base.with_adapter(it)",
            )
        return self._attached

    def embed_images(self, paths: images.Paths) -> Tensor:
        """One vector an image file, float32 [N, D], as the base pools them (docs/images.md). Raises DataError naming a file that cannot be
        read, ConfigError for a base that sees no images."""
        return images.vectors(self.loaded, paths, self.active)

    def classify_images(
        self, paths: images.Paths, labels: Sequence[str] | None = None, *, template: str = TEMPLATE
    ) -> list[Label]:
        """The class of each image file, by the adapter on the base or by the base's own classes.

        labels: names to choose from instead, for a base that has one space for images and texts; each is put into `template`. Raises
        DataError naming a file that cannot be read, UserError where nothing classifies images."""
        on = self._attached
        if labels is not None:
            return labelled(labels, chances(self.loaded, paths, labels, template, self.active))
        names, logp_NL = images.scores(
            self.loaded, on.config if on else None, on.name if on else "", paths, self.active
        )
        return labelled(names, logp_NL.exp())

    def search(self, query: str, paths: images.Paths, *, top: int | None = None) -> list[Found]:
        """Image files by how near they are to a text, the nearest first (`path`, `score`: the cosine). Raises DataError naming a file
        that cannot be read, UserError for a base without one space for images and texts."""
        return find(self.loaded, query, paths, top, self.active)

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
            self._ears = Transcriber(self.loaded, self.active)
        return transcribe(
            self._ears,
            path,
            language=language,
            task=task,
            timestamps=timestamps,
            temperatures=temperatures,
            condition=condition,
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> str:
        """Write the base (never the adapter) as a folder; returns its fingerprint."""
        return save_base(Path(path), self._loaded, overwrite=overwrite)

    def export(self, out: str | Path, *, format: str = "hf", **options: object) -> Path:
        """Write this base for other programs: `hf` (a folder that transformers opens), or another format of docs/bases.md.

        With an adapter on it, its weights are merged into those of the copy. Raises UserError naming what the format cannot express.
        """
        return export(self, Path(out), format, options)

    def quantize(
        self, bits: int, *, group: int = 32, head: int | None = 8, data: str | Path | None = None
    ) -> "Base":
        """A smaller copy of this base with its matrices in `bits` (8 or 4), its record saying what that cost in perplexity.

        group: inputs that share a scale (4 bits); head: bits of the matrix that makes logits, None leaves it as it is; data: a text file
        that the cost is measured on (the Python language reference when not given). Raises UserError.
        """
        return Base(quantised(self.loaded, bits, group, head, data))

    @property
    def _model(self) -> Any:
        return self.loaded.model

    def _read(self, prompt: str | Sequence[Message], images: Sequence[str | Path] = ()) -> seeing.Prompt:
        """The ids of a prompt or a conversation, and the vectors of its images."""
        if not isinstance(prompt, str):
            if images:
                raise UserError("images beside messages", 'put them in: {"type": "image", "image": path}')
            return seeing.told_prompt(self.loaded, prompt, self.active)
        if images:
            return seeing.written_prompt(self.loaded, prompt, images, self.active)
        return seeing.Prompt(self.tokenizer.encode(prompt, bos=True), None)

    def _ids_BT(self, ids: Sequence[int]) -> Tensor:
        context, vocab = self.config.text.context, self.config.text.vocab_size
        if not 0 < len(ids) <= context:
            raise UserError(f"{len(ids)} token ids were given", f"give 1 to {context}, the base's context")
        bad = next((i for i in ids if not 0 <= int(i) < vocab), None)
        if bad is not None:
            raise UserError(f"token id {bad} is not in the vocabulary", f"ids go from 0 to {vocab - 1}")
        return torch.tensor([list(ids)], device=self._model.device)


def _sampling(
    max_tokens: int, temperature: float, stop: Sequence[str], top_p: float, seed: int | None
) -> Sampling:
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    return Sampling(max_tokens=max_tokens, temperature=temperature, stop=stops, top_p=top_p, seed=seed)
