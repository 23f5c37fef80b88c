"""Opens a base from a Hugging Face folder, and writes a base as a folder that transformers can open."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onebase.artifact.files import sha256_file
from onebase.artifact.record import Origin, Record
from onebase.base.config import BaseConfig
from onebase.base.folder import LoadedBase
from onebase.base.head import OwnHead
from onebase.errors import ConfigError
from onebase.formats.card import README, called, note_card, title
from onebase.formats.families import FAMILIES, family_of
from onebase.formats.families.esm import contact_head, contact_tensors
from onebase.formats.families.heads import as_stored, find_head, open_head
from onebase.formats.families.heads_out import padding, pairs_tree, written_head
from onebase.formats.family import Family, Tree, written
from onebase.formats.fields import OtherParts
from onebase.formats.hf.files import CONFIG
from onebase.formats.hf.folder import HFFolder, appear, save_folder
from onebase.formats.hf.named_tokens import SPECIALS, STANDARD, names_tree
from onebase.formats.hf.pictures import PREPROCESSOR, processor, processor_tree, read_pixels
from onebase.formats.hf.sentence import read_sentence, write_sentence
from onebase.formats.hf.speech import read_speech, write_speech
from onebase.formats.hf.tokenizer_files import GENERATION, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, read_codec
from onebase.formats.hf.unsupported import no_model_type, packed, segments
from onebase.formats.peft.folder import CONFIG as ADAPTER
from onebase.formats.reader import ConfigReader
from onebase.formats.tokenizer_equality import lost_ends, other_frame, other_ids, other_talk
from onebase.formats.weight_loading import given_back, load_weights, passed_over, with_prefixes
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.config import TextCodecConfig
from onebase.modality.text.roles import Roles
from onebase.modality.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
FAMILY = "imported.model_type"
"""The record field with the family that a base came from, and is exported to."""


def open_folder(path: Path, *, dtype: torch.dtype | None = None, hashes: bool = False) -> LoadedBase:
    """Read a folder. Weights become `dtype`, or keep their stored dtype. hashes: record the hash of every file, not only its size.

    Raises ArtifactError for missing or damaged files, ConfigError for features of the config that are not supported.
    """
    sentence = read_sentence(path)
    folder = sentence.model if sentence else path
    source = HFFolder(folder)
    where = str(folder / CONFIG)
    head_found = find_head(ConfigReader(source.config, where), source.shapes())
    whole, source = source, source.without(head_found.names if head_found else ())
    reader = ConfigReader(source.config, where, frozenset(source.shapes()), source.read)
    if "model_type" not in source.config and (odd := no_model_type(source.config, reader.where)):
        raise odd
    if (odd := packed(source.config, reader.where) or segments(source.config, reader.where)) is not None:
        raise odd
    family = family_of(source.config.get("model_type"), reader.where)
    family = as_stored(family, head_found.layout if head_found else None)
    cfg = reader.checked(lambda: family.read(reader))
    cfg, unread_image_keys = with_pictures(cfg, folder)
    # Before the weights: errors are found quickly.
    lower = sentence is not None and sentence.lower
    codec = read_codec(folder, cfg.text.vocab_size, lower=lower) if "text" in cfg.codecs else None
    if family.with_tokenizer is not None and codec is not None:
        cfg = family.with_tokenizer(cfg, codec)
    speech = (
        read_speech(folder, codec.tokenizer, cfg.audio, cfg.text.vocab_size)
        if codec is not None and "audio" in cfg.codecs
        else None
    )
    rules = with_prefixes(family.rules(cfg), family, source.shapes())
    notices = source.notices + passed_over(rules, source.listed, source.unlisted, str(folder))
    model = load_weights(cfg, family, source, dtype=dtype)
    files = [
        p for p in path.rglob("*") if p.suffix in (".json", ".safetensors", ".jinja") or p.name == README
    ]
    head = None
    if head_found is not None:
        head, head_notices = open_head(reader, whole, head_found, folder, cfg)
        notices += head_notices
    if (folder / ADAPTER).is_file():
        notices.append(f"the folder also has {ADAPTER}: that adapter is not applied (give it with --adapter)")
    for notice in notices:
        log.warning("%s: %s", folder, notice)
    unread = [*reader.unread, *unread_image_keys]
    record = imported(path, "hf", source.config, unread, files, hashes)
    if head is not None:
        record.add("imported.head", {"task": head.task}, Origin.SOURCE)
    embedding = sentence.embedding if sentence else None
    contacts = contact_head(source, cfg) if "text" in cfg.codecs else None
    if contacts is not None:
        record.add("imported.contacts", len(contacts.weight_C), f"{Origin.SOURCE}: weights of its regression")
    return LoadedBase(
        model, codec, record, path, embedding=embedding, speech=speech, head=head, contacts=contacts
    )


def with_pictures(cfg: BaseConfig, folder: Path) -> tuple[BaseConfig, list[str]]:
    """The config with the folder's image preprocessing, and the keys that were not read. A base without images does not change; without a file
    the family's defaults count. Raises ConfigError for unsupported steps."""
    if "image" not in cfg.codecs:
        return cfg, []
    r = processor(folder)
    codec = cfg.image
    if r is None:
        codec = replace(codec, pixels=read_pixels(None, codec))
    else:
        codec = r.checked(lambda: replace(cfg.image, pixels=read_pixels(r, cfg.image)))
    unread = [f"{PREPROCESSOR}: {key}" for key in r.unread] if r else []
    return replace(cfg, codecs=cfg.codecs | {"image": codec}), unread


def imported(
    path: Path, format: str, config: Tree, unread: Sequence[str], files: Sequence[Path], hashes: bool
) -> Record:
    """The record of a base imported from another format: its known facts, and which are unknown. config: its own; `model_type` is the family."""
    model_type = config["model_type"]
    folder = path if path.is_dir() else path.parent
    own = path.resolve().name
    record = Record("base")
    record.add("name", *called(own, lambda: title(folder), lambda: config.get("_name_or_path")))
    record.add("imported.from", own, f"{Origin.SOURCE}: its name")
    record.add("imported.format", format, Origin.SOURCE)
    record.add(FAMILY, model_type, f"{Origin.SOURCE}: {CONFIG}")
    record.add("imported.unread", list(unread), f"{Origin.SOURCE}: keys of its config that no rule asked for")
    sizes = {
        str(p.relative_to(path) if path.is_dir() else p.name): {"bytes": p.stat().st_size}
        | ({"sha256": sha256_file(p)} if hashes else {})
        for p in sorted(files)
        if p.is_file()
    }
    record.add("imported.files", sizes, Origin.HASHED if hashes else f"{Origin.COUNTED} on the disk")
    note_card(record, folder)
    return record


def save_hf(base: LoadedBase, out: Path, head: OwnHead | None = None) -> None:
    """Write a folder that transformers can open: config, weights, and the files of its codecs (tokenizer, chat template, image preprocessing).
    With a head: the trunk without its own head, and this head (`...ForSequenceClassification`). The folder is written atomically.

    Raises ConfigError with what no layout can express, ArtifactError if `out` exists.
    """
    family, config = layout_of(base)
    cfg = base.model.cfg
    foreign_head = None if head is None else written_head(config["model_type"], head, config)
    if foreign_head is not None:
        config = foreign_head.config

    def write(folder: Path) -> None:
        # The family's own values win: in RoBERTa the padding token's id determines where positions begin.
        known = {k: i for k, i in (_role_ids(base) | _other_ids(base)).items() if config.get(k) is None}
        tensors = given_back(base.model, family.rules(cfg))
        if head is not None and foreign_head is not None:
            tensors = foreign_head.trunk_names(tensors, family.prefix) | foreign_head.tensors
            known |= padding(base.text_codec.tokenizer, head) if base.text_codec is not None else {}
        if base.contacts is not None and config["model_type"] == "esm":
            tensors = tensors | contact_tensors(base.contacts)
        save_folder(folder, config | known, tensors)
        if base.text_codec is not None:
            _write_codec(folder, base.text_codec, cfg.text, _role_ids(base), head)
        if "image" in cfg.codecs:
            _dump(folder / PREPROCESSOR, processor_tree(cfg.image))
        for name, tree in (family.beside(cfg) if family.beside else {}).items():
            _dump(folder / name, tree)
        if base.speech is not None:
            write_speech(folder, base.speech, cfg.audio, cfg.text.context)
        if base.embedding is not None:
            write_sentence(folder, base.embedding, base.model.trunk.cfg.width)
        base.record.save(folder / "onebase_record.json")
        _prove(folder, base)

    appear(out, write)


def _prove(folder: Path, base: LoadedBase) -> None:
    """Read the text codec of a folder back. Raises ConfigError with what transformers would read differently."""
    if base.text_codec is None:
        return
    ours, again = base.text_codec, read_codec(folder, base.model.cfg.text.vocab_size)
    first, second = ours.tokenizer, again.tokenizer
    lost = lost_ends(first, second)
    difference = other_frame(first, second) or other_ids(first, second, ["nothing", "special", "text"])
    difference = (
        difference or other_talk(ours, again) or (f"{lost[0]!r} would not end a text" if lost else None)
    )
    if difference:
        raise ConfigError(
            f"transformers would not read text like this base: {difference}",
            "export to another format",
        )


def _role_ids(base: LoadedBase) -> Tree:
    """`bos_token_id` and similar keys; none for a base without text."""
    if base.text_codec is None:
        return {}
    tokenizer = base.text_codec.tokenizer
    roles = [("bos", tokenizer.bos), ("eos", tokenizer.eos), ("pad", tokenizer.pad)]
    roles += [("decoder_start", base.speech.start)] if base.speech else []
    return {f"{k}_token_id": i for k, i in roles}


def _other_ids(base: LoadedBase) -> Tree:
    """`cls_token_id` and `sep_token_id` for configs of encoders, if the tokenizer has the tokens."""
    if base.text_codec is None:
        return {}
    tokenizer = base.text_codec.tokenizer
    others = {k: tokenizer.roles.others.get(k) for k in ("cls_token", "sep_token")}
    return {f"{k}_id": tokenizer.id_of(v) for k, v in others.items() if v is not None}


def _write_codec(
    folder: Path, codec: TextCodec, cfg: TextCodecConfig, ids: Tree, head: OwnHead | None = None
) -> None:
    tokenizer = codec.tokenizer
    generation = ids | {"eos_token_id": sorted(tokenizer.stop_ids) or None}
    _dump(folder / GENERATION, {k: v for k, v in generation.items() if v is not None})
    (folder / TOKENIZER).write_text(framed_json(tokenizer), encoding="utf-8")
    _dump(
        folder / TOKENIZER_CONFIG,
        _tokenizer_config(tokenizer.roles, cfg) | (pairs_tree(head) if head else {}),
    )
    if names := {k: v for k, v in names_tree(tokenizer.roles).items() if k in STANDARD}:
        _dump(folder / SPECIALS, names)
    if source := whole_template(codec):
        (folder / TEMPLATE).write_text(source, encoding="utf-8")


def whole_template(codec: TextCodec) -> str | None:
    """The chat template for other programs: in our own templates the codec begins a conversation, elsewhere the template does."""
    if not codec.template.source.strip():
        return None
    return ("{{- bos_token -}}\n" if codec.tokenizer.roles.chat_framed else "") + codec.template.source


def layout_of(base: LoadedBase) -> tuple[Family, Tree]:
    """The family that can express this base, and the config in its format: the family it came from, or the first that can."""
    model_type = base.record.get(FAMILY)
    known = [f for f in FAMILIES if model_type in f.model_types]
    refused: ConfigError | None = None
    for family in known or FAMILIES:
        try:
            return family, written(family, base.model.cfg)
        except ConfigError as e:
            nearer = refused is None or (isinstance(refused, OtherParts) and not isinstance(e, OtherParts))
            refused = e if nearer else refused
    raise refused or ConfigError("no known layout can express this base", "export it to another format")


def framed_json(tokenizer: Tokenizer) -> str:
    """`tokenizer.json` whose post-processor frames a text as our codec does."""
    tree: Tree = json.loads(tokenizer.as_json)
    roles = tokenizer.roles
    if roles == Roles.own() or (tree.get("post_processor") is None and (roles.before or roles.after)):
        names = dict.fromkeys([*roles.before, *roles.after])
        tree["post_processor"] = {
            "type": "TemplateProcessing",
            "single": _pieces(roles, "A"),
            "pair": [*_pieces(roles, "A"), *_pieces(roles, "B")],
            "special_tokens": {n: {"id": n, "ids": [tokenizer.id_of(n)], "tokens": [n]} for n in names},
        }
    return json.dumps(tree, ensure_ascii=False)


def _pieces(roles: Roles, part: str) -> list[Tree]:
    def special(names: Sequence[str]) -> list[Tree]:
        return [{"SpecialToken": {"id": n, "type_id": 0}} for n in names]

    return [*special(roles.before), {"Sequence": {"id": part, "type_id": 0}}, *special(roles.after)]


def _tokenizer_config(roles: Roles, codec: TextCodecConfig) -> Tree:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": codec.context,
        "clean_up_tokenization_spaces": False,
        # Without it their class passes token types to all models, and some refuse them.
        "model_input_names": [
            "input_ids",
            *(["token_type_ids"] if codec.types > 1 else []),
            "attention_mask",
        ],
    } | names_tree(roles)


def _dump(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
