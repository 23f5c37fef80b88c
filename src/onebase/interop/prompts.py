"""Soft prompts of PEFT ("PROMPT_TUNING") in and out: adapter_config.json and adapter_model.safetensors. P virtual tokens, D width.

Source: peft `tuners/prompt_tuning/config.py` and `peft_model.py`, read for names and meaning: `prompt_embeddings` [P, D] stand before the
embeddings of the text, and positions count them, there and here.
"""

import json
from pathlib import Path

from torch import Tensor

from onebase.artifact.tensors import load_tensors, save_tensors
from onebase.base.model import BaseModel
from onebase.errors import ArtifactError, ConfigError
from onebase.interop.folder import read_json
from onebase.interop.peft import CONFIG, PICKLE, WEIGHTS
from onebase.interop.reader import Reader

KIND, KEY = "PROMPT_TUNING", "prompt_embeddings"
# Of how it was started or trained, or said by the shape of its tensor.
_IDLE = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "num_attention_heads",
    "num_layers",
    "peft_version",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "revision",
    "task_type",
    "token_dim",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
)


def is_soft(path: Path) -> bool:
    """Is this folder of PEFT (`is_peft`) a soft prompt?"""
    return read_json(path / CONFIG).get("peft_type") == KIND


def load_soft(path: Path, model: BaseModel) -> Tensor:
    """The vectors [P, D], fp32. Raises ArtifactError for what is missing or does not fit, ConfigError for what is more than a soft prompt."""
    r = Reader(read_json(path / CONFIG), str(path / CONFIG))
    r.must("peft_type", KIND, None, "it is another method")
    r.must("num_transformer_submodules", 1, 1, "it is for an encoder and a decoder")
    P = r.size("num_virtual_tokens")
    for key in _IDLE:
        r.has(key)
    odd = next((k for k in r.unread if r.data[k] not in (None, False, [], {}, "")), None)
    if odd is not None:
        raise ConfigError(
            f"{r.where}: '{odd}' is {r.data[odd]!r}: nothing here reads it",
            "give an adapter that is a soft prompt alone",
        )
    _unscaled(model)
    if not (path / WEIGHTS).is_file() and (path / PICKLE).is_file():
        raise ArtifactError(
            f"{path} has its weights as a pickle ({PICKLE}), which can run any code when opened",
            "ask for safetensors, or convert in a place where nothing can be harmed",
        )
    found = load_tensors(path / WEIGHTS)
    wanted = (P, model.text.width)
    if set(found) != {KEY} or found[KEY].shape != wanted or not found[KEY].is_floating_point():
        shapes = {k: list(t.shape) for k, t in found.items()}
        raise ArtifactError(
            f"{path / WEIGHTS} has {shapes}, a soft prompt for this base is {KEY} {list(wanted)}",
            "give an adapter of this base that is a soft prompt alone",
        )
    return found[KEY].float().clone()


def save_soft(path: Path, vectors_PD: Tensor, model: BaseModel, *, base: str = "") -> None:
    """Write the vectors into an existing folder. base: what the adapter's base is called there. Raises ConfigError as `load_soft`."""
    _unscaled(model)
    attn = model.trunk.cfg.blocks[0].attn
    tree = {
        "peft_type": KIND,
        "task_type": "CAUSAL_LM" if model.cfg.text.head else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "num_virtual_tokens": len(vectors_PD),
        "token_dim": model.text.width,
        "num_transformer_submodules": 1,
        "num_attention_heads": attn.heads,
        "num_layers": len(model.trunk.cfg.blocks),
        "prompt_tuning_init": "RANDOM",
        "inference_mode": True,
    }
    (path / CONFIG).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    save_tensors(path / WEIGHTS, {KEY: vectors_PD.contiguous()})


def _unscaled(model: BaseModel) -> None:
    if model.cfg.text.scale is not None:
        raise ConfigError(
            "this base multiplies its embeddings by a number, and whether PEFT's soft prompts are multiplied too depends on its version",
            "use a LoRA for this base",
        )
