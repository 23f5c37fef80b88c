"""Training samples of text with media, for bases of published layouts: a transcript of a sound (Whisper), text with images in it (LLaVA, Gemma 3).

M mel bands, F frames.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebase.base.folder import LoadedBase
from onebase.base.links import connector_places
from onebase.engine.image_prompts import image_name, sees, taken_apart
from onebase.engine.speech_rules import prompt_of, room_after
from onebase.errors import DataError, UserError
from onebase.modality.audio.config import AudioCodecConfig
from onebase.modality.audio.mel import window_mel
from onebase.modality.audio.read import read_audio
from onebase.modality.image.pixels import prepared, read_picture
from onebase.modality.text.sample import Media, MediaContent, Sample, Segment, Tokens, in_parts

Source = Path | bytes
"""A file, or its bytes."""
SILENT = 1e-4
"""A sound whose largest sample is below this (-80 dB) is silence."""


def digest_of(source: Source) -> str:
    """SHA-256 of a file that can be read."""
    return hashlib.sha256(source if isinstance(source, bytes) else source.read_bytes()).hexdigest()


def audio_content(source: Source, name: str, cfg: AudioCodecConfig) -> MediaContent:
    """A sound as the log-mel frames of one window. It is decoded here once to check it. Raises DataError naming a file that is missing, damaged, silent,
    or longer than the window; UserError without the extra."""

    def remedy() -> str:
        return f"cut it into pieces of at most {cfg.seconds:g} s, each with its text"

    sound_N = read_audio(source, cfg.rate, name=name)
    seconds = len(sound_N) / cfg.rate
    if seconds > cfg.seconds:
        raise DataError(f"{name} has {seconds:.1f} s of audio, the base reads {cfg.seconds:g} s", remedy())
    if len(sound_N) < cfg.hop:
        raise DataError(f"{name} has {seconds:.3f} s of audio, less than one frame", "remove the row")
    if float(sound_N.abs().max()) < SILENT:
        raise DataError(f"{name} is silent", "remove the row, or give the right file")

    def load() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        mel_MF = window_mel(read_audio(source, cfg.rate, name=name), cfg)
        return mel_MF.numpy(), np.zeros((0, 0), np.int64)

    return MediaContent(digest_of(source), 0, load, name, (cfg.places,), f"audio {seconds:.1f} s")


def transcript(base: LoadedBase, sound: MediaContent, text: str, language: str | None) -> Tokens:
    """A sound and its transcript without times: start, language and task as in transcription, then the supervised text with its end. Raises
    DataError for a text longer than the decoder writes."""
    speech = base.speech
    assert speech is not None
    task = speech.task or ("transcribe" if "transcribe" in speech.tasks else None)
    context = base.model.cfg.text.context
    before = prompt_of(speech, language, task, timestamps=False, context=context)
    # A space before the first word, as pretraining had it.
    written = [*base.codec.tokenizer.encode(f" {text.strip()}"), speech.end]
    if len(written) > (room := room_after(len(before), context)):
        raise DataError(
            f"has {len(written)} tokens of text, the decoder writes at most {room}",
            "cut the sound and its text into pieces",
        )
    ids = np.asarray([*before, *written], np.int32)
    return Tokens(ids, np.arange(len(ids)) >= len(before), source="sound", media=(Media("audio", 0, sound),))


def image_content(source: Source, name: str, base: LoadedBase) -> MediaContent:
    """`image_pixels` in as many tokens of the text as the base's connector gives."""
    cfg, link = base.model.cfg.image, base.model.cfg.link("embed")
    assert link is not None and link.connector is not None
    return replace(image_pixels(source, name, base), count=connector_places(link.connector, cfg))


def image_pixels(source: Source, name: str, base: LoadedBase) -> MediaContent:
    """An image as the pixels that the base reads, beside a text. It is decoded here once to check it. Raises DataError naming a file that is
    missing, truncated, or no image."""
    cfg = base.model.cfg.image

    def load() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        pixels_CHW = prepared(read_picture(source, name), cfg, name)
        return pixels_CHW.numpy(), np.zeros((0, 0), np.int64)

    load()
    vectors = cfg.patches + cfg.class_token + cfg.registers
    return MediaContent(digest_of(source), 0, load, name, (vectors,), f"image {cfg.side}x{cfg.side}")


def with_images(base: LoadedBase, sample: Sample, images: Sequence[MediaContent]) -> Tokens:
    """A sample that has one image token per image, each widened to the tokens of an image. Raises DataError where their numbers differ."""
    read, link = base.codec.tokens(sample), base.model.cfg.link("embed")
    assert link is not None and link.connector is not None
    cfg = link.connector
    places = np.flatnonzero(read.ids == cfg.token).tolist()
    if len(places) != len(images):
        raise DataError(
            f"has {len(images)} images, but {len(places)} image tokens",
            "let the chat template write one for each image",
        )
    ids, loss, media, done, size = [], [], [], 0, 0
    for place, content in zip(places, images, strict=True):
        wide = [*cfg.before, *[cfg.token] * content.count, *cfg.after]
        ids += [read.ids[done:place], np.asarray(wide, np.int32)]
        loss += [read.loss[done:place], np.zeros(len(wide), np.bool_)]
        media.append(Media("image", size + place - done + len(cfg.before), content))
        size, done = size + place - done + len(wide), place + 1
    ids.append(read.ids[done:])
    loss.append(read.loss[done:])
    return replace(read, ids=np.concatenate(ids), loss=np.concatenate(loss), media=tuple(media))


def caption(base: LoadedBase, image: MediaContent, text: str, instruction: str = "") -> Tokens:
    """An image and its supervised text with its end. instruction: a text before the answer; where the chat template knows images, both are a
    conversation."""
    template = base.codec.template
    if instruction and template.takes_parts:
        parts = [{"type": "image"}, {"type": "text", "text": instruction}]
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": text},
        ]
        return with_images(base, _conversation(base, messages), [image])
    spans = [Segment("special", image_name(base))]
    spans += [Segment("text", instruction)] if instruction else []
    spans += [Segment("text", text, loss=True), Segment("end", None, loss=True)]
    return with_images(base, Sample(tuple(spans), source="image"), [image])


def _conversation(base: LoadedBase, messages: Sequence[Mapping[str, Any]]) -> Sample:
    spans = base.codec.template.segments([in_parts(m) for m in messages], parts=True)
    return Sample(spans, source="sft")


def has_images(messages: Any) -> bool:
    """Whether a part of a message is an image."""
    contents = [m.get("content") for m in messages if isinstance(m, Mapping)]
    parts = [p for c in contents if isinstance(c, list | tuple) for p in c]
    return any(isinstance(p, Mapping) and p.get("type") == "image" for p in parts)


def chat_with_images(base: LoadedBase, messages: Sequence[Mapping[str, Any]], folder: Path) -> Tokens:
    """A conversation with images among its contents, the assistant's parts supervised. Raises DataError naming an image that cannot be read, UserError
    for a base or a template that knows no images."""
    plain, paths = taken_apart(messages)
    if not sees(base) or not base.codec.template.takes_parts:
        raise UserError(
            "the messages have images, and this base or its chat template supports none",
            "use a base that takes images in conversations (docs/images_and_text.md)",
        )
    images = [image_content(folder / path, str(folder / path), base) for path in paths]
    return with_images(base, _conversation(base, plain), images)
