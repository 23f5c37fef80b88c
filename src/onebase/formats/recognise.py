"""Recognises the foreign format of a path by its file names and their first bytes alone: fast, and without torch."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from onebase.artifact.manifest import MANIFEST
from onebase.formats.hf.files import CONFIG

MODULES = "modules.json"
"""sentence-transformers writes it beside or instead of config.json."""
PEFT_CONFIG = "adapter_config.json"
CT2_FILE = "model.bin"
PIPELINE = "model_index.json"


def is_folder(path: Path) -> bool:
    """Is this a folder of a saved Hugging Face model (and not of ours)?"""
    if not path.is_dir() or (path / MANIFEST).is_file():
        return False
    return (path / CONFIG).is_file() or (path / MODULES).is_file()


def is_gguf(path: Path) -> bool:
    """Does the file name end in .gguf?"""
    return path.is_file() and path.suffix.lower() == ".gguf"


def is_ctranslate2(path: Path) -> bool:
    """Is this a folder with a model of CTranslate2?"""
    try:
        with open(path / CT2_FILE, "rb") as f:
            head = f.read(256)
    except OSError:
        return False
    # A version and a short text that ends in "Spec": no other kind of model.bin begins like this.
    if len(head) < 7 or struct.unpack("<I", head[:4])[0] > 255:
        return False
    end = 6 + struct.unpack("<H", head[4:6])[0]
    return head[6:end].endswith(b"Spec\0")


def is_pipeline(path: Path) -> bool:
    """Is this a folder that a diffusers pipeline was saved to?"""
    return path.is_dir() and not (path / MANIFEST).is_file() and (path / PIPELINE).is_file()


def is_peft(path: Path) -> bool:
    """Is this a folder of an adapter saved by PEFT?"""
    return path.is_dir() and (path / PEFT_CONFIG).is_file()


FORMATS_IN: Mapping[str, Callable[[Path], bool]] = {
    "a CTranslate2 folder of Whisper (model.bin, tokenizer.json)": is_ctranslate2,
    "a Hugging Face folder (config.json and safetensors)": is_folder,
    "a .gguf file": is_gguf,
    "a diffusers folder of a DiT pipeline (model_index.json, transformer/, vae/, scheduler/)": is_pipeline,
}
"""Formats that a base can be opened from, with the function that recognises each. The first match counts."""


def format_of(path: Path) -> str | None:
    """The foreign format of a path; None if it is in no supported one."""
    return next((name for name, fits in FORMATS_IN.items() if fits(path)), None)
