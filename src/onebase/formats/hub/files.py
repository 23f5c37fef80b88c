"""Selects the files of a model in a repo on the Hub, by the list of file names and the index of shards."""

import re
from collections.abc import Sequence
from pathlib import Path

from onebase.errors import ArtifactError
from onebase.formats.card import README, TRAINED_ON
from onebase.formats.hf.files import CONFIG, INDEX, WEIGHTS, read_json
from onebase.formats.hf.unsupported import by_names

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SMALL = frozenset(
    f"{stem}.json"
    for stem in (
        *("config", "generation_config", "adapter_config", "model.safetensors.index"),
        *("tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens", "vocab", "normalizer"),
        *("preprocessor_config", "processor_config", "chat_template"),
        *("modules", "config_sentence_transformers", "sentence_bert_config", "sentence_roberta_config"),
        *("sentence_distilbert_config", "sentence_xlm-roberta_config"),
    )
) | {"chat_template.jinja", "vocab.txt", "merges.txt", README, TRAINED_ON}
"""All files that are read apart from weights."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_PARTS = 1000
_MODULE = re.compile(r"\d{1,3}_\w+/")
_PART = re.compile(r"(?P<head>.*-)(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf")


def leaves_the_folder(name: str) -> bool:
    """Does a listed name point outside the repo's folder?"""
    return "\\" in name or bool({"", ".", ".."} & set(name.split("/")))


def places(names: Sequence[str]) -> list[str]:
    """Folders in a repo that may have a model: its root, and the modules of sentence-transformers."""
    return ["", *sorted({match[0] for n in names if (match := _MODULE.match(n))})]


def small_files(names: Sequence[str]) -> list[str]:
    """The files in the repo that are read apart from weights."""
    return sorted(place + n for place in places(names) for n in SMALL if place + n in names)


def has_weights(names: Sequence[str]) -> bool:
    """Are there weights in a supported format?"""
    return any(place + n in names for place in places(names) for n in (WEIGHTS, INDEX, ADAPTER_WEIGHTS))


def weight_files(folder: Path, names: Sequence[str]) -> list[str]:
    """The weight files for the small files in `folder`: the shards of the index, or the single file. Raises ArtifactError."""
    if ADAPTER in names and CONFIG not in names:
        return [ADAPTER_WEIGHTS]
    out: list[str] = []
    for place in places(names):
        one = place + WEIGHTS in names
        if place + INDEX in names:
            file = folder / (place + INDEX)
            table = read_json(file).get("weight_map")
            shards = sorted({str(n) for n in table.values()}) if isinstance(table, dict) else []
            bad = next((n for n in shards if "/" in n or "\\" in n or not n.endswith(".safetensors")), None)
            if bad is not None or not shards:
                raise ArtifactError(
                    f"{file} has the shard {bad!r}" if shards else f"{file} has no weight_map",
                    "a shard must be a .safetensors file in the same folder",
                )
            there = next((n for n in shards if place + n in names), None)
            if one and WEIGHTS not in shards and there is not None:
                raise ArtifactError(
                    f"{file} lists shards ({there}), and {WEIGHTS} is there too: it is not clear which of the two counts",
                    "download the folder (hf download REPO --local-dir DIR), remove the outdated weights, and give DIR",
                )
            # If the shards are missing the index is outdated: the single file is read, as in transformers.
            out += [place + WEIGHTS] if one and there is None else [place + n for n in shards]
        elif one:
            out.append(place + WEIGHTS)
    return out


def all_parts(file: str) -> list[str]:
    """A .gguf file, or all parts if it is the first part of a split one."""
    match = _PART.fullmatch(file)
    if match is None:
        return [file]
    count = min(int(match["count"]), MAX_PARTS)
    return [f"{match['head']}{i + 1:05}-of-{match['count']}.gguf" for i in range(count)]


def gguf_files(repo: str, names: Sequence[str]) -> str:
    """The .gguf files of a repo as `hf:` names (the first part of split ones); "" if there are none."""
    files = [n for n in sorted(names) if n.endswith(".gguf")]
    firsts = [n for n in files if (part := _PART.fullmatch(n)) is None or int(part["no"]) == 1]
    shown = ", ".join(f"hf:{repo}/{n}" for n in firsts[:6])
    return shown + (", ..." if len(firsts) > 6 else "")


def nothing_to_read(name: str, repo: str, names: Sequence[str]) -> ArtifactError:
    """The error for a repo without supported weights."""
    pickled = sorted(n for n in names if n.endswith(PICKLES))
    if gguf := gguf_files(repo, names):
        return ArtifactError(f"{name} has no safetensors, only GGUF files", f"name one of them: {gguf}")
    if "model.bin" in names and any(n.startswith("vocabulary.") for n in names):
        return ArtifactError(
            f"{name} has CTranslate2 weights (model.bin), which are not fetched by name",
            f"download the folder (hf download {repo} --local-dir DIR) and give DIR, or name the model it was converted from",
        )
    if pickled:
        return ArtifactError(
            f"{name} has its weights as a pickle ({pickled[0]}), which can run any code when opened",
            "use safetensors: most models have them, or a pull request with them (@refs/pr/N)",
        )
    if (found := by_names(name, names)) is not None:
        return found
    return ArtifactError(f"{name} has no weights as safetensors or GGUF", "give the repo of a model")
