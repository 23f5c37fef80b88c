"""Prompts with images: each image token in the text is expanded to as many tokens as an image has vectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.links import ConnectorConfig, connector_places
from onebase.engine.media_prompts import media_tokens
from onebase.errors import ArtifactError, DataError, UserError
from onebase.modality.image.pixels import pixels
from onebase.modality.media import MEDIA
from onebase.modality.text.sample import Media, Message, Sample, Segment, in_parts, joined
from onebase.model.proj import AdapterRouting

BATCH = 8
"""Images per forward."""


class Prompt(NamedTuple):
    """Token ids, and the vectors that replace the image tokens (None without images). media: of a base of patches, in their places."""

    ids: list[int]
    inserts: Tensor | None
    media: tuple[Media, ...] = ()


def sees(base: LoadedBase) -> bool:
    """Whether this base takes images in its text."""
    return base.model.cfg.link("embed") is not None


def text_prompt(
    base: LoadedBase, text: str, paths: Sequence[str | Path], routing: AdapterRouting | None = None
) -> Prompt:
    """A text to be continued, with the name of the image token where each image goes. Raises UserError if the number of image tokens is not that of the
    images, DataError naming a file that is not an image."""
    if base.model.patches:
        return _with_patches(base, text, paths)
    name = image_name(base)
    spans: list[Segment] = []
    for i, part in enumerate(text.split(name)):
        spans += ([Segment("special", name)] if i else []) + ([Segment("text", part)] if part else [])
    ids = base.codec.tokens(Sample(tuple(spans))).ids.tolist()
    return _with_pictures(base, ids, paths, routing)


def _with_patches(base: LoadedBase, text: str, paths: Sequence[str | Path]) -> Prompt:
    """The prompt of a base of patches: `<|image|>` stands for each image."""
    name = MEDIA["image"].special
    texts = text.split(name)
    if len(texts) - 1 != len(paths):
        raise UserError(
            f"{len(paths)} images, but {len(texts) - 1} image tokens in the prompt",
            f"write {name} once for each image",
        )
    parts: list[tuple[str, str | Path | bytes]] = [("text", texts[0])] if texts[0] else []
    for path, part in zip(paths, texts[1:], strict=True):
        parts += [("image", path), *([("text", part)] if part else [])]
    tokens = media_tokens(base, *parts)
    return Prompt(tokens.ids.tolist(), None, tokens.media)


def chat_prompt(
    base: LoadedBase, messages: Sequence[Message], routing: AdapterRouting | None = None
) -> Prompt:
    """A conversation whose contents may be lists of parts, {"type": "image", "image": path} and {"type": "text", "text": ...}.

    Raises UserError for a base that reads no images or whose template does not support them, DataError for malformed messages.
    """
    if not _are_maps(messages):
        return Prompt(base.codec.chat_ids(messages), None)  # raises for malformed messages
    plain, paths = taken_apart(messages)
    if paths and not sees(base):
        raise _sees_none()
    if paths and not base.codec.template.takes_parts:
        raise UserError(
            "this base's chat template does not support images",
            f"use generate, with {image_name(base)} in the prompt",
        )
    if not sees(base) or not base.codec.template.takes_parts:  # text parts are joined into one text
        return Prompt(base.codec.chat_ids([joined(m) for m in plain]), None)
    ids = base.codec.chat_ids([in_parts(m) for m in plain], parts=True)
    # Templates of such models may omit the token that begins a text.
    begun = base.codec.tokenizer.begun(ids)
    ids = ids if ids[:1] == begun[:1] else begun
    return _with_pictures(base, ids, paths, routing)


def taken_apart(messages: Sequence[Message]) -> tuple[list[Message], list[str | Path]]:
    """The messages without the paths of their images, and these paths in order. Raises DataError for a part that is neither text nor image."""
    plain: list[Message] = []
    paths: list[str | Path] = []
    for n, message in enumerate(messages, 1):
        content = message.get("content")
        if isinstance(content, list | tuple):
            plain.append({**message, "content": [_part(part, n, paths) for part in content]})
        else:
            plain.append(message)
    return plain, paths


def _are_maps(messages: Any) -> bool:
    listed = isinstance(messages, Sequence) and not isinstance(messages, str | bytes)
    return listed and all(isinstance(m, Mapping) for m in messages)


def _part(part: Any, number: int, paths: list[str | Path]) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "image" and isinstance(part.get("image"), str | Path):
        paths.append(part["image"])
        return {"type": "image"}
    raise DataError(
        f"message {number} has an unknown content part: {str(part)[:200]}",
        'give {"type": "image", "image": path} or {"type": "text", "text": text}',
    )


def image_name(base: LoadedBase) -> str:
    """The name of the image token, as written in a prompt. Raises UserError if the base takes no images in its text."""
    token = _connector(base).token
    name = next((n for n, i in base.codec.tokenizer.specials.items() if i == token), None)
    if name is None:
        raise ArtifactError(
            f"token {token} stands for an image, but it is not a special token of the tokenizer",
            "use the tokenizer that belongs to the model",
        )
    return name


def _connector(base: LoadedBase) -> ConnectorConfig:
    link = base.model.cfg.link("embed")
    if link is None or link.connector is None:
        raise _sees_none()
    return link.connector


def _sees_none() -> UserError:
    return UserError("this base takes no images in its text", "use one that does (docs/images_and_text.md)")


@torch.no_grad()
def _with_pictures(
    base: LoadedBase, ids: list[int], paths: Sequence[str | Path], routing: AdapterRouting | None
) -> Prompt:
    model, connector = base.model, _connector(base)
    places = ids.count(connector.token)
    if places != len(paths):
        raise UserError(
            f"{len(paths)} images, but {places} image tokens in the prompt",
            f"write {image_name(base)} once for each image",
        )
    each = connector_places(connector, model.cfg.image)
    place = [*connector.before, *[connector.token] * each, *connector.after]
    wide = [j for i in ids for j in (place if i == connector.token else [i])]
    vectors = []
    for start in range(0, len(paths), BATCH):
        images = pixels(paths[start : start + BATCH], model.cfg.image).to(model.device)
        vectors.append(model.seen(images, routing))
    return Prompt(wide, torch.cat(vectors) if vectors else None)
