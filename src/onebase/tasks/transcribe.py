"""Task transcribe: speech to text, learnt from sounds and their transcripts, by Whisper and by bases of patches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from onebase.base.folder import LoadedBase
from onebase.config import config
from onebase.data import read_rows
from onebase.data.labelled import Make, Records
from onebase.engine.media_samples import audio_content, transcript
from onebase.engine.prompter import Given
from onebase.engine.speech import Transcriber
from onebase.engine.transcribing import transcribe
from onebase.errors import DataError, UserError
from onebase.evaluation.predictions import Transcripts
from onebase.methods.bound import Bound
from onebase.methods.method import option
from onebase.modality.media import MEDIA
from onebase.modality.text.sample import Tokens
from onebase.objective.flow_config import AS_READ
from onebase.objective.media_text import MediaText
from onebase.objective.mixed import Mixed
from onebase.tasks.base import ScoreRequest, Shown, Task, always
from onebase.tasks.checks import check_text
from onebase.tasks.fit import Lesson
from onebase.tasks.job import Adapting
from onebase.tasks.media_rows import (
    NO_VIRTUAL,
    answered,
    media_lesson,
    naming,
    read_patches,
    source_of,
    text_nats,
    written,
)
from onebase.tasks.reading import Row, RowReader, each_row


@config
class TranscribeOptions:
    """Options of task transcribe."""

    language: str | None = option(
        None, "language code of the speech, for a base of several (a row's column `language` comes first)"
    )


def check_hears(base: LoadedBase) -> None:
    """Raises UserError for a base that does not transcribe speech."""
    check_text(base, "use a base that transcribes speech (Whisper: docs/speech.md)")
    if not _patches(base) and (base.speech is None or base.model.cfg.link("memory") is None):
        raise UserError(
            "this base does not transcribe speech: it has no speech settings, no encoder of sound, and no patches of it",
            "use one that does (Whisper: docs/speech.md; a native base: docs/native.md)",
        )


def _patches(base: LoadedBase) -> bool:
    """Whether sound stands as patches in the sequence of the text."""
    return MEDIA["audio"].codec in base.model.patches


def _language(base: LoadedBase, row: Row, given: str | None) -> str | None:
    """The language of a row; None for a base of one. Raises DataError for an unknown one, or none."""
    own = base.speech
    if own is None:
        if language := row.get("language") or given:
            raise DataError(f"has the language {language!r}, and this base knows none", "leave it out")
        return None
    known = own.languages
    language = row.get("language") or given or own.language
    if known and language is None:
        raise DataError(
            "has no language, and the base has several",
            "set -o language=en, or add a column `language` with codes",
        )
    if language is not None and language not in (known or ("en",)):
        raise DataError(
            f"has the language {language!r}, which the base does not have",
            f"supported: {', '.join(known) or 'en'}",
        )
    return language if known else None


def samples(reader: RowReader) -> Make:
    """Each row's sound and transcript. The sound is decoded once here, to check it, and again whenever it is learnt from."""
    given = reader.options.of_task.language if reader.options.of_task is not None else None

    def made(row: Row) -> Any:
        sample = _sample(reader.base, row, given, reader.folder)
        return reader.too_long(len(sample)) or (sample,)

    return each_row(made)


def _sample(base: LoadedBase, row: Row, language: str | None, folder: Path) -> Tokens:
    language = _language(base, row, language)
    source, name = source_of(row["audio"], "audio", folder)
    if _patches(base):
        with naming(name):
            return read_patches(base, "audio", source, str(row["text"]).strip())
    try:
        sound = audio_content(source, name, base.model.cfg.audio)
    except UserError as e:
        raise e if "pip install" in e.remedy else DataError(e.cause, e.remedy) from None
    return transcript(base, sound, str(row["text"]), language)


def lesson(job: Adapting) -> Lesson:
    """Cross-entropy of the transcript given the sound, through encoder and decoder, or in one trunk."""
    if _patches(job.base):
        return media_lesson(
            job,
            "audio",
            lambda learner, length: Mixed.of(
                job.base.model, length, AS_READ, job.options.seed, learner.routing
            ),
        )
    return media_lesson(job, "audio", special=False)  # pretraining has trained the special tokens


def _trained_language(bound: Bound) -> str | None:
    """The language that the adapter was trained for, by its record."""
    kept = None if bound.attached is None else bound.attached.record.get("config.options")
    language = kept.get("language") if isinstance(kept, dict) else None
    return language if isinstance(language, str) else None


def predictions(request: ScoreRequest) -> Transcripts:
    """The greedy transcript of each sound beside the true one, and the likelihood of the true one."""
    base, trained = request.base, _trained_language(request.base)
    check_hears(base.loaded)
    records = Records.of(request.data)
    folder = records.folder
    make = each_row(lambda row: (_sample(base.loaded, row, trained, folder),))
    rows = read_rows(records, ("audio", "text"), make=make)
    if _patches(base.loaded):
        made = written(request, rows.texts, [str(r["text"]) for r in rows])
        return Transcripts(made.truth, made.found, made.nats_N, made.tokens_N)
    ears = Transcriber(base.loaded, base.routing)
    found = [
        transcribe(
            ears,
            source_of(row["audio"], "audio", folder)[0],
            language=_language(base.loaded, row, trained),
            temperatures=(0.0,),
        ).text
        for row in rows
    ]
    objective = MediaText(base.routing)
    nats_N, tokens_N = text_nats(base.loaded.model, rows.texts, objective)
    return Transcripts([str(r["text"]) for r in rows], found, nats_N, tokens_N)


LONGEST = 128
"""Tokens that a base of patches writes at most."""
_EARS: WeakKeyDictionary[Bound, Transcriber] = WeakKeyDictionary()


def answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    """The transcript of each sound, a file or its bytes."""
    files = [item["audio"] if isinstance(item, dict) else item for item in given]
    if _patches(bound.loaded):
        each = [_sample(bound.loaded, {"audio": f, "text": "a"}, None, Path()) for f in files]
        return [Shown(text, {"text": text}) for text in answered(bound, each, LONGEST)]
    ears = _EARS.get(bound)
    if ears is None:
        ears = _EARS[bound] = Transcriber(bound.loaded, bound.routing)
    trained, out = _trained_language(bound), []
    for file in files:
        source, _ = source_of(file, "audio", Path())
        found = transcribe(ears, source, language=trained)
        fields = {"text": found.text, "language": found.language, "duration": round(found.duration, 3)}
        out.append(Shown(found.text, fields))
    return out


TASK = Task(
    name="transcribe",
    columns=("audio", "text"),
    lesson=lesson,
    options=TranscribeOptions,
    methods={
        "prompt": "a prompt is text, and this base reads sound",
        "head": "a head predicts labels, not text",
        "soft": NO_VIRTUAL,
        "prefix": NO_VIRTUAL,
    },
    fits=check_hears,
    writes=always,
    samples=samples,
    by_sample=True,
    predictions=predictions,
    answer=answer,
    reads=("audio",),
    files=("audio",),
    tuned_by=("wer", "nats_per_token"),
    signal="answers",
)
