"""Reads and writes PEFT's LoRA on the text codec: low-rank deltas of embedding and head, rows of tokens, and whole saved matrices.

Source: peft `tuners/lora/layer.py` (Embedding), `tuners/trainable_tokens/layer.py`, `utils/other.py`, read for names and meaning. With tied
weights a matrix that is not adapted does not change, except rows of tokens, which both matrices share. V vocabulary, D width, R rank,
K tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.peft.folder import CONFIG, PREFIX, PeftFolder, Target
from onebase.formats.peft.names import ends, ends_by_any_name
from onebase.methods.lora_config import EMBEDDING, ENDS, LM_HEAD, LoraConfig

Parts = Mapping[str, Mapping[str, Tensor]]
"""Tensors of each module by kind: A, B, base_layer, tokens."""


@dataclass
class TextWeights:
    """An adapter's weights on the text codec. modules: PEFT's names of matrices with a low-rank delta, by site."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    tokens: tuple[int, ...] = ()
    replaced: tuple[str, ...] = ()


def matrix_VD(model: BaseModel, end: str) -> Tensor:
    """The base's embedding or head matrix, fp32."""
    text = model.text
    if end == LM_HEAD:
        return text.head_weight_VD.detach().float()
    if text.stem.weight is not None:
        return text.stem.weight.detach().float()
    assert text.stem.store is not None
    return text.stem.store.dense(torch.float32)


def read_ends(
    folder: PeftFolder, target: Target, found: Parts, tokens: Mapping[str, list[int]]
) -> TextWeights:
    """Read an adapter's weights on the text codec. found: its modules that are embedding or head. tokens: ids whose rows are trained, by the
    suffix of a module's name (of the embedding: ""). Raises ArtifactError for tensors that do not fit the base."""
    model, known = target.model, ends_by_any_name(target.model, target.family())
    out = TextWeights()
    rows: dict[str, Tensor] = {}
    for module, parts in found.items():
        end = ENDS[known[module]]
        shape = matrix_VD(model, end).shape
        if "base_layer" in parts:  # PEFT saves a copy of the base's matrix with its low-rank delta
            _replace(folder, model, out, end, parts["base_layer"], copied=True)
        if "tokens" in parts:
            rows[end] = parts["tokens"].float()
        if not {"A", "B"} & parts.keys():
            continue
        if not {"A", "B"} <= parts.keys():
            raise ArtifactError(f"{folder.where}: {module!r} has only one of A and B", "take an intact copy")
        a, b = parts["A"], parts["B"]
        V, D = shape
        outer = (D, V) if end == EMBEDDING else (V, D)
        if a.shape[1] != outer[1] or b.shape != (outer[0], a.shape[0]) or not len(a):
            raise ArtifactError(
                f"{folder.where}: {module!r} has A {list(a.shape)} and B {list(b.shape)}, the base needs "
                f"[rank, {outer[1]}] and [{outer[0]}, rank]",
                "give an adapter of this base (one with as many tokens)",
            )
        out.tensors[f"{end}.a"], out.tensors[f"{end}.b"] = a.float().clone(), b.float().clone()
        out.modules[end] = module
    for name, t in folder.matrices.items():
        if not name.endswith(".weight") or name.removesuffix(".weight") not in known:
            raise ConfigError(
                f"{folder.said.where}: 'modules_to_save' has {name!r}, which is neither the embedding nor the language-model head",
                "give an adapter with LoRA only",
            )
        _replace(folder, model, out, ENDS[known[name.removesuffix(".weight")]], t, copied=False)
    if tokens and not rows:
        raise ArtifactError(
            f"{folder.where}: 'trainable_token_indices' is {dict(tokens)}, but the file has no such rows",
            "take an intact copy",
        )
    if rows:
        _read_tokens(folder, target, out, rows, tokens)
    return out


def _replace(
    folder: PeftFolder, model: BaseModel, out: TextWeights, end: str, given_VD: Tensor, *, copied: bool
) -> None:
    """Store a whole matrix if it differs from the base's. copied: PEFT's copy of the base's matrix, from which a quantized base differs."""
    own_VD = matrix_VD(model, end)
    if given_VD.shape != own_VD.shape:
        raise ArtifactError(
            f"{folder.where}: a matrix for {end} of {list(given_VD.shape)}, the base's is {list(own_VD.shape)}",
            "give an adapter of this base (one with as many tokens)",
        )
    delta_VD = given_VD.float() - own_VD.cpu()
    if not bool(delta_VD.any()) or (copied and model.cfg.storage is not None):
        return
    out.tensors[f"{end}.delta"] = delta_VD
    out.replaced = (*out.replaced, end)


def _read_tokens(
    folder: PeftFolder,
    target: Target,
    out: TextWeights,
    rows: Mapping[str, Tensor],
    tokens: Mapping[str, list[int]],
) -> None:
    """Rows that replace those of some tokens, stored as differences from the base's."""
    model, known = target.model, ends_by_any_name(target.model, target.family())
    ids = {}
    for word, given in tokens.items():
        end = next((e for name, e in known.items() if not word or f".{name}".endswith(f".{word}")), None)
        ids[EMBEDDING if not word else ENDS.get(end or "", word)] = given
    if model.cfg.text.tied and LM_HEAD not in rows and EMBEDDING in rows and model.cfg.text.head:
        rows, ids = {**rows, LM_HEAD: rows[EMBEDDING]}, {**ids, LM_HEAD: ids.get(EMBEDDING, [])}
    out.tokens = tuple(sorted({i for end in rows for i in ids.get(end, ())}))
    vocab = model.cfg.text.vocab_size
    for end, key in ((EMBEDDING, "text.stem.rows"), (LM_HEAD, "text.head.rows")):
        delta_KD = torch.zeros(len(out.tokens), model.text.width)
        if end in rows:
            here, values_KD = ids.get(end, []), rows[end]
            if values_KD.shape != (len(here), model.text.width) or any(not 0 <= i < vocab for i in here):
                raise ArtifactError(
                    f"{folder.path / CONFIG}: 'trainable_token_indices' has {len(here)} tokens below {vocab}, the rows are {list(values_KD.shape)}",
                    "give an adapter of this base",
                )
            added_KD = values_KD - matrix_VD(model, end).cpu()[here]
            scale = model.cfg.text.scale if end == EMBEDDING else None
            delta_KD[[out.tokens.index(i) for i in here]] = added_KD * (1.0 if scale is None else scale)
        out.tensors[key] = delta_KD


def write_ends(
    cfg: LoraConfig, tensors: Mapping[str, Tensor], target: Target
) -> tuple[dict[str, str], dict[str, Any], dict[str, Tensor]]:
    """(modules with a low-rank delta by site, keys of the config, tensors) of an adapter's weights on the text codec. Raises ConfigError for
    weights that PEFT cannot represent."""
    if not (cfg.ends or cfg.replaced or cfg.tokens):
        return {}, {}, {}
    model = target.model
    names = {ENDS[end]: name for end, name in ends(model, target.family(), target.headed).items()}
    if lacking := sorted({*cfg.ends, *cfg.replaced} - names.keys()):
        raise ConfigError(f"PEFT's LoRA cannot represent {lacking[0]!r}", "export the merged base instead")
    out: dict[str, Tensor] = {}
    for end in cfg.ends:
        a, b = tensors[f"{end}.a"], tensors[f"{end}.b"]
        kinds = (
            ("lora_embedding_A", "lora_embedding_B")
            if end == EMBEDDING
            else ("lora_A.weight", "lora_B.weight")
        )
        out |= {f"{PREFIX}{names[end]}.{kind}": t for kind, t in zip(kinds, (a, b), strict=True)}
    for end in cfg.replaced:
        out[f"{PREFIX}{names[end]}.weight"] = matrix_VD(model, end).cpu() + tensors[f"{end}.delta"].cpu()
    keys: dict[str, Any] = {}
    if cfg.replaced:
        keys["modules_to_save"] = [names[end].rsplit(".", 1)[-1] for end in cfg.replaced]
    if cfg.tokens:
        keys["trainable_token_indices"], rows = _written_tokens(cfg, tensors, model, names)
        out |= rows
    return {end: names[end] for end in cfg.ends}, keys, out


def _written_tokens(
    cfg: LoraConfig, tensors: Mapping[str, Tensor], model: BaseModel, names: Mapping[str, str]
) -> tuple[dict[str, list[int]], dict[str, Tensor]]:
    ids, text = list(cfg.tokens), model.cfg.text
    stem_KD, head_KD = (tensors[key].cpu() for key in ("text.stem.rows", "text.head.rows"))
    stem_KD = stem_KD if text.scale is None else stem_KD / text.scale
    added = {EMBEDDING: stem_KD}
    if text.tied and text.head:
        if not torch.allclose(stem_KD, head_KD, atol=1e-7):
            raise ConfigError(
                "PEFT's LoRA cannot represent 'text.stem.rows' that differ from 'text.head.rows': this base's embeddings are tied",
                "export the merged base instead",
            )
    elif bool(head_KD.any()):
        added[LM_HEAD] = head_KD
    if lacking := sorted(added.keys() - names.keys()):
        raise ConfigError(
            f"PEFT's LoRA cannot represent rows of {lacking[0]!r}", "export the merged base instead"
        )
    rows = {
        f"{PREFIX}{names[end]}.token_adapter.trainable_tokens_delta": matrix_VD(model, end).cpu()[ids] + t
        for end, t in added.items()
    }
    return {names[end].rsplit(".", 1)[-1]: ids for end in added}, rows
