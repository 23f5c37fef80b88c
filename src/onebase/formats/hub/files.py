"""Which files of a repo on the Hub make a model: by the list of its names, and by the index of its shards."""

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
"""Everything that is read beside weights."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_PARTS = 1000
_MODULE = re.compile(r"\d{1,3}_\w+/")
_PART = re.compile(r"(?P<head>.*-)(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf")


def leaves_the_folder(name: str) -> bool:
    """Does a listed name mean a place outside the repo's folder?"""
    return "\\" in name or bool({"", ".", ".."} & set(name.split("/")))


def places(names: Sequence[str]) -> list[str]:
    """Where a model may lie in a repo: at its top, or in the folder of a module of sentence-transformers."""
    return ["", *sorted({found[0] for n in names if (found := _MODULE.match(n))})]


def small_files(names: Sequence[str]) -> list[str]:
    """All that is read beside weights."""
    return sorted(place + n for place in places(names) for n in SMALL if place + n in names)


def has_weights(names: Sequence[str]) -> bool:
    """Are there weights that could be read?"""
    return any(place + n in names for place in places(names) for n in (WEIGHTS, INDEX, ADAPTER_WEIGHTS))


def weight_files(folder: Path, names: Sequence[str]) -> list[str]:
    """The weights that go with the small files in `folder`: shards by the index, or the one file. Raises ArtifactError."""
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
                    f"{file} names the shard {bad!r}" if shards else f"{file} has no weight_map",
                    "a shard is a .safetensors file in the same folder",
                )
            there = next((n for n in shards if place + n in names), None)
            if one and WEIGHTS not in shards and there is not None:
                raise ArtifactError(
                    f"{file} lists shards ({there}), and {WEIGHTS} is there too: which of the two counts is not said",
                    "fetch the folder (hf download REPO --local-dir DIR), remove the one that is out of date, and give DIR",
                )
            # Where the shards are gone the index is out of date: what is read is the one file, as in transformers.
            out += [place + WEIGHTS] if one and there is None else [place + n for n in shards]
        elif one:
            out.append(place + WEIGHTS)
    return out


def all_parts(file: str) -> list[str]:
    """A .gguf file, or all parts of the one it is the first of."""
    found = _PART.fullmatch(file)
    if found is None:
        return [file]
    count = min(int(found["count"]), MAX_PARTS)
    return [f"{found['head']}{i + 1:05}-of-{found['count']}.gguf" for i in range(count)]


def gguf_files(repo: str, names: Sequence[str]) -> str:
    """The .gguf files of a repo as names to give, of split ones the first part; "" where there is none."""
    found = [n for n in sorted(names) if n.endswith(".gguf")]
    firsts = [n for n in found if (part := _PART.fullmatch(n)) is None or int(part["no"]) == 1]
    shown = ", ".join(f"hf:{repo}/{n}" for n in firsts[:6])
    return shown + (", ..." if len(firsts) > 6 else "")


def nothing_to_read(name: str, repo: str, names: Sequence[str]) -> ArtifactError:
    """Why nothing in a repo can be read, and what to do."""
    pickled = sorted(n for n in names if n.endswith(PICKLES))
    if gguf := gguf_files(repo, names):
        return ArtifactError(f"{name} has no safetensors, but GGUF files", f"name one of them: {gguf}")
    if "model.bin" in names and any(n.startswith("vocabulary.") for n in names):
        return ArtifactError(
            f"{name} has its weights as CTranslate2 has them (model.bin), which is not fetched by name",
            f"fetch the folder (hf download {repo} --local-dir DIR) and give DIR, or name the model it was made from",
        )
    if pickled:
        return ArtifactError(
            f"{name} has its weights as a pickle ({pickled[0]}), which can run any code when opened",
            "ask for safetensors: most models have them, or a proposal for them (@refs/pr/N)",
        )
    if (found := by_names(name, names)) is not None:
        return found
    return ArtifactError(f"{name} has no weights as safetensors or GGUF", "give the repo of a model")
