"""Reads and writes sentence-transformers folders: an encoder, and the pooling of its hidden states into one vector.

`modules.json` lists the modules in order: Transformer, Pooling and optionally Normalize. Another module would change the vector, so it is
refused by name. Source: sentence-transformers `base/modules/`, `sentence_transformer/modules/pooling.py`, read for names and defaults.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebase.errors import ArtifactError, ConfigError
from onebase.formats.hf.files import MAX_JSON, read_json
from onebase.formats.reader import ConfigReader
from onebase.formats.recognise import MODULES
from onebase.modality.text.pooling import EmbeddingConfig, Pooling

ABOUT = "config_sentence_transformers.json"
LIMITS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
MODES: dict[str, Pooling] = {"cls": "cls", "max": "max", "mean": "mean", "lasttoken": "last"}
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
TEXT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
PACKAGE = "sentence_transformers."


@dataclass(frozen=True)
class Sentence:
    """model: the folder of the encoder and its tokenizer; lower: texts are lower-cased before the tokenizer's own steps."""

    model: Path
    embedding: EmbeddingConfig
    lower: bool = False


def read_sentence(path: Path) -> Sentence | None:
    """The text embedding of a folder; None for other folders. Raises ConfigError for unsupported modules and settings, ArtifactError for a
    damaged folder."""
    if not (path / MODULES).is_file() or crossing(path) is not None:
        return None
    steps = _modules(path)
    kinds = [kind for kind, _ in steps]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        odd = next((k for k in kinds if k not in ("Transformer", "Pooling", "Normalize")), None)
        raise ConfigError(
            f"{path / MODULES} has the module {odd!r}"
            if odd
            else f"{path / MODULES} runs {', '.join(kinds) or 'nothing'}",
            "accepted: Transformer, Pooling and optionally Normalize, in this order",
        )
    _no_prompt(path)
    model = steps[0][1]
    if len(steps) > 2:
        _plain_normalize(steps[2][1])
    limit, lower = _limit(model)
    embedding = EmbeddingConfig(
        pooling=_pooling(steps[1][1] / "config.json"), normalise=len(steps) > 2, limit=limit
    )
    return Sentence(model, embedding, lower)


@dataclass(frozen=True)
class Pairs:
    """A folder's settings for text pairs outside its config. activation: of a cross-encoder's scores, by name ("" if none is named); None if it is
    not a cross-encoder. limit: a pair is truncated to so many tokens (None: the context). typed: does the second text have token type 1?"""

    activation: str | None = None
    limit: int | None = None
    typed: bool = True


def read_pairs(path: Path, context: int) -> Pairs:
    """The settings from its files. A tokenizer without `model_input_names` gives token types if its class is BERT's, as in transformers."""
    file = path / "tokenizer_config.json"
    tok_config = read_json(file) if file.is_file() else {}
    longest, inputs = tok_config.get("model_max_length"), tok_config.get("model_input_names")
    limit = longest if isinstance(longest, int) and 0 < longest < context else None
    own = str(tok_config.get("tokenizer_class", "Bert")).startswith("Bert")
    return Pairs(crossing(path), limit, "token_type_ids" in inputs if isinstance(inputs, list) else own)


def crossing(path: Path) -> str | None:
    """`Pairs.activation` of a folder."""
    file = path / ABOUT
    r = ConfigReader(read_json(file), str(file)) if file.is_file() else None
    if r is None or r.get("model_type", str, "") != "CrossEncoder":
        return None
    return r.get("activation_fn", str, "")


def write_sentence(path: Path, embedding: EmbeddingConfig, width: int) -> None:
    """Add the sentence-transformers files to the folder of an exported encoder of this width."""
    names = ["Transformer", "Pooling"] + ["Normalize"] * embedding.normalise
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{name}" if i else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]
    mode = next(theirs for theirs, ours in MODES.items() if ours == embedding.pooling)
    flags = {flag: name == mode for flag, name in FLAGS.items()}
    for module in modules[1:]:
        (path / str(module["path"])).mkdir(exist_ok=True)
    _dump(path / MODULES, modules)
    _dump(path / "1_Pooling" / "config.json", {"word_embedding_dimension": width} | flags)
    limit = {} if embedding.limit is None else {"max_seq_length": embedding.limit}
    _dump(path / LIMITS[0], limit | {"do_lower_case": False})


def _modules(path: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module, in order."""
    file = path / MODULES
    try:
        if file.stat().st_size > MAX_JSON:
            raise ArtifactError(f"{file} is too large", "take an intact copy of the folder")
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ArtifactError(f"{file} is not JSON: {e}", "take an intact copy of the folder") from None
    if not isinstance(tree, list) or not all(isinstance(entry, dict) for entry in tree):
        raise ArtifactError(f"{file} is not a list of modules", "take an intact copy of the folder")
    steps = []
    for entry in tree:
        r = ConfigReader(entry, str(file))
        kind, folder = r.get("type", str), r.get("path", str, "")
        if not kind.startswith(PACKAGE):
            raise ConfigError(
                f"{file} has the module {kind!r}, which is custom code", "custom code is not run"
            )
        if folder and (Path(folder).name != folder or folder == ".."):
            raise ArtifactError(f"{file} has the folder {folder!r}", "a module must be in the same folder")
        steps.append((kind.rsplit(".", 1)[-1], path / folder if folder else path))
    return steps


def _pooling(file: Path) -> Pooling:
    r = ConfigReader(read_json(file), str(file))
    if r.has("pooling_mode"):
        value = r.data["pooling_mode"]
        modes = value if isinstance(value, list) else [value]
    else:
        modes = [mode for flag, mode in FLAGS.items() if r.get(flag, bool, False)] or ["mean"]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in MODES:
        raise ConfigError(f"{file}: pooling by {modes}", "accepted: one of " + ", ".join(MODES))
    return MODES[modes[0]]


def _plain_normalize(folder: Path) -> None:
    if (folder / "config.json").is_file():
        r = ConfigReader(read_json(folder / "config.json"), str(folder / "config.json"))
        for key in ("module_input_name", "module_output_name"):
            r.must(key, "sentence_embedding", "sentence_embedding", "only the text embedding is normalised")


def _no_prompt(path: Path) -> None:
    file = path / ABOUT
    if file.is_file():
        r = ConfigReader(read_json(file), str(file))
        name = r.get("default_prompt_name", str, "")
        if name and r.has("prompts") and r.part("prompts").get(name, str, ""):
            r.must("default_prompt_name", None, None, "it adds a prompt before every text")


def _limit(model: Path) -> tuple[int | None, bool]:
    """The maximum tokens of a text, from the folder or from its tokenizer (None: the model's context), and whether texts are lower-cased."""
    lower = False
    for name in LIMITS:
        if (model / name).is_file():
            r = ConfigReader(read_json(model / name), str(model / name))
            lower = r.get("do_lower_case", bool, False)
            task = "feature-extraction"
            r.must("transformer_task", task, task, "embeddings need hidden states")
            r.must("modality_config", TEXT, TEXT, "embeddings need hidden states of plain text")
            for key in ("processing_kwargs", "query_length", "document_length", "query_expansion"):
                if r.data.get(key) != {}:  # an empty map is the same as none
                    r.must(key, None, None, "all texts are read in the same way")
            if r.has("max_seq_length"):
                return r.size("max_seq_length"), lower
            break
    file = model / "tokenizer_config.json"
    if not file.is_file():
        return None, lower
    longest = read_json(file).get("model_max_length")
    # "No limit" is written as a huge number there.
    return longest if isinstance(longest, int) and 0 < longest < 10**6 else None, lower


def _dump(file: Path, tree: Any) -> None:
    file.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
