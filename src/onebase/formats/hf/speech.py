"""Reads and writes the settings of speech bases: generation_config.json, preprocessor_config.json, names of special tokens."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onebase.errors import ConfigError
from onebase.formats.hf.files import CONFIG, read_json
from onebase.formats.hf.tokenizer_files import GENERATION
from onebase.formats.reader import ConfigReader
from onebase.modality.audio.config import AudioCodecConfig
from onebase.modality.audio.speech import SpeechConfig
from onebase.modality.text.tokenizer import Tokenizer

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
TASKS = ("transcribe", "translate")
START, END = "<|startoftranscript|>", "<|endoftext|>"
MULTILINGUAL = 51865
"""A vocabulary of at least this size has tokens for languages and tasks (openai/whisper, model.py: `is_multilingual`)."""
Tree = dict[str, Any]


def read_speech(
    folder: Path, tokenizer: Tokenizer, audio: AudioCodecConfig, rows: int
) -> SpeechConfig | None:
    """The transcription settings of a Hugging Face folder; None if its tokenizer has no tokens for it.

    Raises ConfigError for audio frames that differ from ours.
    """
    if (extractor := _extractor(folder)) is not None:
        _same_frames(extractor, audio)
    tree: Tree = read_json(folder / CONFIG)
    own: Tree = {
        k: tree[k] for k in ("suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids") if k in tree
    }
    where = folder / CONFIG
    if (folder / GENERATION).is_file():
        where = folder / GENERATION
        own |= read_json(where)
    return speech_config(tokenizer.specials, own, rows, str(where))


def _extractor(folder: Path) -> ConfigReader | None:
    """A folder's settings of audio frames: from their own file, or from that of the whole processor (transformers 5); None without either."""
    if (folder / PREPROCESSOR).is_file():
        return ConfigReader(read_json(folder / PREPROCESSOR), str(folder / PREPROCESSOR))
    if not (folder / PROCESSOR).is_file():
        return None
    whole = ConfigReader(read_json(folder / PROCESSOR), str(folder / PROCESSOR))
    return whole.part("feature_extractor") if whole.has("feature_extractor") else None


def _same_frames(r: ConfigReader, audio: AudioCodecConfig) -> None:
    why = "other audio frames are not supported"
    for key, wanted in _frames(audio).items():
        r.must(key, wanted, wanted, why)
    r.must("dither", 0.0, 0.0, why)


def _frames(audio: AudioCodecConfig) -> Tree:
    return {
        "feature_size": audio.mels,
        "sampling_rate": audio.rate,
        "hop_length": audio.hop,
        "n_fft": audio.window,
        "padding_value": 0.0,
    }


def speech_config(names: Mapping[str, int], generation: Tree, rows: int, where: str) -> SpeechConfig | None:
    """The settings from the names of special tokens and a generation config. rows: tokens that the model can generate.

    Raises ConfigError for a key of the wrong type, or a token that the model lacks.
    """
    r = ConfigReader(generation, where)
    no_timestamps = names.get("<|notimestamps|>")
    no_timestamps = r.get("no_timestamps_token_id", int, -1 if no_timestamps is None else no_timestamps)
    if START not in names or END not in names or no_timestamps < 0:
        return None
    languages: dict[str, int] = {}
    tasks: dict[str, int] = {}
    if r.get("is_multilingual", bool, rows >= MULTILINGUAL):
        by_token = {m[1]: i for name, i in names.items() if (m := LANGUAGE.fullmatch(name))}
        listed = _table(r, "lang_to_id")
        languages = {k.removeprefix("<|").removesuffix("|>"): v for k, v in listed.items()} or by_token
        tasks = _table(r, "task_to_id") or {t: names[f"<|{t}|>"] for t in TASKS if f"<|{t}|>" in names}
    previous = names.get("<|startofprev|>", r.get("prev_sot_token_id", int, -1))
    silent = names.get("<|nospeech|>", names.get("<|nocaptions|>"))
    never = {*_ids(r, "suppress_tokens", rows), names[START], *(names.get(f"<|{t}|>") for t in TASKS)}
    never |= {previous, silent, names.get("<|startoflm|>")}
    language, task = _forced(r, languages, tasks)
    for i in (no_timestamps, *languages.values(), *tasks.values()):
        if not 0 <= i < rows:
            raise ConfigError(
                f"{where} has token {i}, the model has only {rows:,}", "use files that belong together"
            )
    return r.checked(
        lambda: SpeechConfig(
            start=names[START],
            end=names[END],
            no_timestamps=no_timestamps,
            previous=None if previous < 0 else previous,
            no_speech=silent,
            languages=languages,
            tasks=tasks,
            suppress=tuple(sorted(i for i in never if i is not None and i >= 0)),
            suppress_first=tuple(sorted(_ids(r, "begin_suppress_tokens", rows))),
            first_timestamp=r.get("max_initial_timestamp_index", int, 50),
            language=language,
            task=task,
        )
    )


def _table(r: ConfigReader, key: str) -> dict[str, int]:
    table = r.get(key, dict, {})
    if not all(isinstance(k, str) and type(v) is int for k, v in table.items()):
        raise r.refuse(key, "a map of names to ids")
    return table


def _ids(r: ConfigReader, key: str, rows: int) -> set[int]:
    """Ids of a list; negative ones mean none."""
    ids = r.get(key, list, [])
    if not all(type(i) is int and i < rows for i in ids):
        raise r.refuse(key, f"a list of ids below {rows:,}")
    return {i for i in ids if i >= 0}


def _forced(
    r: ConfigReader, languages: Mapping[str, int], tasks: Mapping[str, int]
) -> tuple[str | None, str | None]:
    """The fixed language and task: named, or (in older files) forced as tokens 1 and 2."""
    forced = r.get("forced_decoder_ids", list, [])
    ids = [p[1] for p in forced if isinstance(p, list) and len(p) == 2]
    named = r.get("language", str, "").removeprefix("<|").removesuffix("|>")
    language = named if named in languages else next((k for k, v in languages.items() if v in ids), None)
    task = r.get("task", str, "")
    return language, task if task in tasks else next((k for k, v in tasks.items() if v in ids), None)


def write_speech(folder: Path, speech: SpeechConfig, audio: AudioCodecConfig, context: int) -> None:
    """Add the keys that `read_speech` reads to an exported folder, whose generation_config.json already has the token roles."""
    tree = read_json(folder / GENERATION) | generation_tree(speech) | {"max_length": context}
    (folder / GENERATION).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    (folder / PREPROCESSOR).write_text(
        json.dumps(preprocessor_tree(audio), indent=2) + "\n", encoding="utf-8"
    )


def generation_tree(speech: SpeechConfig) -> Tree:
    """The keys of generation_config.json that `speech_config` reads."""
    tree: Tree = {
        "decoder_start_token_id": speech.start,
        "no_timestamps_token_id": speech.no_timestamps,
        "suppress_tokens": list(speech.suppress),
        "begin_suppress_tokens": list(speech.suppress_first),
        "is_multilingual": bool(speech.languages),
        "max_initial_timestamp_index": speech.first_timestamp,
        "prev_sot_token_id": speech.previous,
        "lang_to_id": {f"<|{k}|>": v for k, v in speech.languages.items()},
        "task_to_id": speech.tasks,
        "language": speech.language,
        "task": speech.task,
    }
    return {k: v for k, v in tree.items() if v not in (None, {})}


def preprocessor_tree(audio: AudioCodecConfig) -> Tree:
    """preprocessor_config.json for transformers."""
    samples = audio.context * audio.hop
    return _frames(audio) | {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "chunk_length": samples // audio.rate,
        "n_samples": samples,
        "nb_max_frames": audio.context,
        "padding_side": "right",
        "return_attention_mask": False,
    }
