"""How a speech base listens, out of foreign files and back: generation_config.json, preprocessor_config.json, the tokenizer's names."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onebase.codec.audio.config import AudioCodecConfig
from onebase.codec.audio.speech import SpeechConfig
from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import ConfigError
from onebase.formats.hf.files import CONFIG, read_json
from onebase.formats.hf.tokenizer_files import GENERATION
from onebase.formats.reader import ConfigReader

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
TASKS = ("transcribe", "translate")
START, END = "<|startoftranscript|>", "<|endoftext|>"
MULTILINGUAL = 51865
"""A vocabulary of at least so many tokens has room for languages and tasks (openai/whisper, model.py: `is_multilingual`)."""
Tree = dict[str, Any]


def read_speech(
    folder: Path, tokenizer: Tokenizer, audio: AudioCodecConfig, rows: int
) -> SpeechConfig | None:
    """What a Hugging Face folder says of transcribing; None where its tokenizer has no tokens for that.

    Raises ConfigError for frames that are made otherwise than ours.
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
    """What a folder says about frames: in a file of its own, or in that of the whole processor (transformers 5); None without."""
    if (folder / PREPROCESSOR).is_file():
        return ConfigReader(read_json(folder / PREPROCESSOR), str(folder / PREPROCESSOR))
    if not (folder / PROCESSOR).is_file():
        return None
    found = ConfigReader(read_json(folder / PROCESSOR), str(folder / PROCESSOR))
    return found.part("feature_extractor") if found.has("feature_extractor") else None


def _same_frames(r: ConfigReader, audio: AudioCodecConfig) -> None:
    why = "frames of sound are made in one way only"
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


def speech_config(names: Mapping[str, int], said: Tree, rows: int, where: str) -> SpeechConfig | None:
    """From the names of special tokens and a generation config. rows: tokens that the model can choose.

    Raises ConfigError naming a key of another type, or a token that the model lacks.
    """
    r = ConfigReader(said, where)
    nothing = names.get("<|notimestamps|>")
    nothing = r.get("no_timestamps_token_id", int, -1 if nothing is None else nothing)
    if START not in names or END not in names or nothing < 0:
        return None
    languages: dict[str, int] = {}
    tasks: dict[str, int] = {}
    if r.get("is_multilingual", bool, rows >= MULTILINGUAL):
        found = {m[1]: i for name, i in names.items() if (m := LANGUAGE.fullmatch(name))}
        listed = _table(r, "lang_to_id")
        languages = {k.removeprefix("<|").removesuffix("|>"): v for k, v in listed.items()} or found
        tasks = _table(r, "task_to_id") or {t: names[f"<|{t}|>"] for t in TASKS if f"<|{t}|>" in names}
    previous = names.get("<|startofprev|>", r.get("prev_sot_token_id", int, -1))
    silent = names.get("<|nospeech|>", names.get("<|nocaptions|>"))
    never = {*_ids(r, "suppress_tokens", rows), names[START], *(names.get(f"<|{t}|>") for t in TASKS)}
    never |= {previous, silent, names.get("<|startoflm|>")}
    language, task = _forced(r, languages, tasks)
    for i in (nothing, *languages.values(), *tasks.values()):
        if not 0 <= i < rows:
            raise ConfigError(
                f"{where} names token {i}, the model has {rows:,}", "they do not belong together"
            )
    return r.checked(
        lambda: SpeechConfig(
            start=names[START],
            end=names[END],
            no_timestamps=nothing,
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
    """Ids of a list; -1 and the like mean none."""
    found = r.get(key, list, [])
    if not all(type(i) is int and i < rows for i in found):
        raise r.refuse(key, f"a list of ids below {rows:,}")
    return {i for i in found if i >= 0}


def _forced(
    r: ConfigReader, languages: Mapping[str, int], tasks: Mapping[str, int]
) -> tuple[str | None, str | None]:
    """Language and task that are always taken: named, or (in older files) forced as tokens 1 and 2."""
    forced = r.get("forced_decoder_ids", list, [])
    ids = [p[1] for p in forced if isinstance(p, list) and len(p) == 2]
    named = r.get("language", str, "").removeprefix("<|").removesuffix("|>")
    language = named if named in languages else next((k for k, v in languages.items() if v in ids), None)
    task = r.get("task", str, "")
    return language, task if task in tasks else next((k for k, v in tasks.items() if v in ids), None)


def write_speech(folder: Path, speech: SpeechConfig, audio: AudioCodecConfig, context: int) -> None:
    """Add what `read_speech` reads to an exported folder, whose generation_config.json has the roles of tokens already."""
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
    """preprocessor_config.json as transformers reads it."""
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
