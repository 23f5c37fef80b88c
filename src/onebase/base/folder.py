"""A base on disk: base.json, model safetensors, codecs/text/, template.jinja, record.json, manifest.json."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch

from onebase.artifact.files import ArtifactWriter, check_fast, read_json, read_manifest, understood
from onebase.artifact.record import Record
from onebase.artifact.tensors import fingerprint, load_tensors, save_tensors
from onebase.base.config import BaseConfig
from onebase.base.head import ContactHead, HeadConfig, OwnHead
from onebase.base.model import BaseModel
from onebase.config import from_file
from onebase.config_plain import to_dict, without_defaults
from onebase.errors import ArtifactError
from onebase.modality.audio.speech import SpeechConfig
from onebase.modality.latents.autoencoder import Autoencoder
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.modality.text.roles import Roles
from onebase.modality.text.template import ChatTemplate
from onebase.modality.text.tokenizer import Tokenizer

WEIGHTS = "model-00001.safetensors"
TOKENIZER = "codecs/text/tokenizer.json"
ROLES = "codecs/text/roles.json"
EMBEDDING = "codecs/text/embedding.json"
HEAD, HEAD_WEIGHTS = "head.json", "head.safetensors"
CONTACTS = "contacts.safetensors"
SPEECH = "codecs/audio/speech.json"
AUTOENCODER, AUTOENCODER_WEIGHTS = "codecs/latents/autoencoder.json", "codecs/latents/autoencoder.safetensors"
TEMPLATE = "template.jinja"
C = TypeVar("C")


@dataclass
class FeatureMemo:
    """A cache of a base while `Base.remembering` is active: pooled states of texts by their ids, and the hash of its weights once
    computed."""

    texts: dict[bytes, torch.Tensor] = field(default_factory=dict)
    weights: str | None = None


@dataclass
class LoadedBase:
    """A base in memory: the module, its `text_codec` (None where it reads no text), its record, and where it was read from.

    `origin` is the fingerprint of the folder it was read from; a base built in memory computes its own. `embedding`: how a text
    becomes one vector, for embedding models; `speech`: its special tokens, for speech recognition; `head`: the published head, and `contacts`: the
    regression of contacts of a protein base, no part of the fingerprint; nor is `autoencoder`, which turns latents into pictures. A copy starts without `memory`.
    """

    model: BaseModel
    text_codec: TextCodec | None
    record: Record = field(default_factory=lambda: Record("base"))
    path: Path | None = None
    origin: str | None = None
    embedding: EmbeddingConfig | None = None
    speech: SpeechConfig | None = None
    head: OwnHead | None = None
    contacts: ContactHead | None = None
    autoencoder: Autoencoder | None = None
    memory: FeatureMemo | None = field(default=None, init=False, repr=False, compare=False)
    leases: WeakValueDictionary[str, Any] = field(
        default_factory=WeakValueDictionary, init=False, repr=False, compare=False
    )
    _hashed: tuple[Any, str] | None = field(default=None, init=False, repr=False, compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of weights and config, to which adapters are bound."""
        return self.origin or base_fingerprint(self.model)

    def reread(self) -> str:
        """The fingerprint of the weights in memory now (inside `remembering`: at the first call). Hashed once, and again when `state_of`
        reports a change."""
        if self.memory is None:
            now = state_of(self.model)
            if self._hashed is None or self._hashed[0] != now:
                self._hashed = (now, base_fingerprint(self.model))
            return self._hashed[1]
        if self.memory.weights is None:
            self.memory.weights = base_fingerprint(self.model)
        return self.memory.weights

    @property
    def name(self) -> str:
        """The base's name: from its record, else its folder; "" in memory."""
        stated = self.record.get("name")
        return str(stated) if stated else self.path.name if self.path else ""

    @property
    def codec(self) -> TextCodec:
        """The text codec. Raises ArtifactError for a base that reads no text."""
        if self.text_codec is None:
            raise ArtifactError(
                f"this base has no tokenizer: it reads {', '.join(sorted(self.model.cfg.codecs))}",
                "use a base that reads text",
            )
        return self.text_codec

    @property
    def hashes(self) -> dict[str, str]:
        """Hashes of all that an adapter may depend on: weights, tokenizer and template."""
        hashes = {"fingerprint": self.fingerprint}
        if self.text_codec is not None:
            hashes |= {
                "tokenizer": self.text_codec.tokenizer.digest,
                "template": self.text_codec.template.digest,
            }
        return hashes


def base_tensors(model: BaseModel) -> dict[str, torch.Tensor]:
    """The base's own parameters: without adapter deltas, heads, virtual tokens, and the trained rows of `FewRows`."""
    return {
        name: p.detach()
        for name, p in model.named_parameters()
        if ".deltas." not in name and ".few." not in name and not name.startswith(("heads.", "virtual."))
    }


SAMPLED = 1 << 16
"""Maximum values of a tensor that are summed to detect a change."""


@torch.no_grad()
def state_of(model: BaseModel) -> tuple[object, ...]:
    """A cheap state that detects changed weights in memory, in a hundredth of the time of a hash. It has the config, and for each tensor its
    name, address, version (which torch increments on in-place changes) and the sum of its bits (of a large tensor: of evenly spaced
    values). The sum is needed because changes that bypass torch (`p.data`, numpy) change no version."""
    facts: list[tuple[object, ...]] = []
    sums = []
    for name, t in base_tensors(model).items():
        facts.append((name, t.data_ptr(), -1 if t.is_inference() else t._version, t.shape, t.dtype))
        flat = t.reshape(-1) if t.is_contiguous() else t.contiguous().view(-1)
        some = flat[:: max(1, flat.numel() // SAMPLED)].contiguous()
        bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[some.element_size()]
        sums.append(some.view(bits).sum(dtype=torch.int64))
    return (model.cfg, *facts, *(torch.stack(sums).tolist() if sums else ()))


def base_fingerprint(model: BaseModel) -> str:
    """`ob1-` + hash of all own tensors and the canonical config."""
    return fingerprint(base_tensors(model), without_defaults(model.cfg))


def save_base(path: Path, base: LoadedBase, *, overwrite: bool = False) -> str:
    """Write the folder, completely or not at all; returns the fingerprint."""
    digest = base_fingerprint(base.model)
    base.record.hashes.update(base.hashes | {"fingerprint": digest})
    with ArtifactWriter(path, kind="base", facts={"fingerprint": digest}, overwrite=overwrite) as w:
        tree = {"schema": 1, "config": to_dict(base.model.cfg)}
        w.path("base.json").write_text(json.dumps(tree, indent=1), encoding="utf-8")
        save_tensors(w.path(WEIGHTS), base_tensors(base.model), {"fingerprint": digest})
        if base.text_codec is not None:
            _save_text_codec(w, base.text_codec)
        if base.embedding is not None:
            embedding = {"schema": 1, "embedding": to_dict(base.embedding)}
            w.path(EMBEDDING).write_text(json.dumps(embedding, indent=1), encoding="utf-8")
        if base.speech is not None:
            speech = {"schema": 1, "speech": to_dict(base.speech)}
            w.path(SPEECH).write_text(json.dumps(speech, indent=1), encoding="utf-8")
        if base.head is not None:
            head = {"schema": 1, "task": base.head.task, "head": to_dict(base.head.config)}
            w.path(HEAD).write_text(json.dumps(head, indent=1), encoding="utf-8")
            save_tensors(w.path(HEAD_WEIGHTS), base.head.tensors)
        if base.contacts is not None:
            weight_C, bias = base.contacts.weight_C, torch.tensor([base.contacts.bias])
            save_tensors(w.path(CONTACTS), {"weight": weight_C, "bias": bias})
        if base.autoencoder is not None:
            autoencoder = {"schema": 1, "autoencoder": dict(base.autoencoder.config)}
            w.path(AUTOENCODER).write_text(json.dumps(autoencoder, indent=1), encoding="utf-8")
            save_tensors(w.path(AUTOENCODER_WEIGHTS), base.autoencoder.tensors)
        base.record.save(w.path("record.json"))
    return digest


def _save_text_codec(w: ArtifactWriter, codec: TextCodec) -> None:
    codec.tokenizer.save(w.path(TOKENIZER))
    if codec.tokenizer.roles != Roles.own():
        roles = {"schema": 1, "roles": to_dict(codec.tokenizer.roles)}
        w.path(ROLES).write_text(json.dumps(roles, indent=1), encoding="utf-8")
    w.path(TEMPLATE).write_text(codec.template.source, encoding="utf-8")


def load_base(
    path: Path,
    *,
    device: torch.device | None = None,
    dtype: Callable[[torch.device], torch.dtype] | None = None,
) -> LoadedBase:
    """Read a base folder. Files are checked against the manifest (hashes cached by path, size and mtime).

    `dtype` maps the device to the dtype of activations (default fp32); weights stay as stored.
    Raises ArtifactError naming what is missing, damaged or of another kind.
    """
    manifest = read_manifest(path, "base")
    check_fast(path)
    device = device or torch.device("cpu")
    tree = read_json(path / "base.json", "config")
    cfg = from_file(BaseConfig, tree["config"], str(path / "base.json"))
    with torch.device("meta"):
        model = BaseModel(cfg)
    put_tensors(model, load_tensors(path / WEIGHTS, str(device)), path)
    model.compute_dtype = dtype(device) if dtype else torch.float32
    return LoadedBase(
        model.eval(),
        _codec(path, cfg.text.vocab_size) if "text" in cfg.codecs else None,
        Record.load(path / "record.json"),
        path,
        str(manifest["facts"].get("fingerprint", "")) or None,
        _part(path / EMBEDDING, EmbeddingConfig, "embedding"),
        _part(path / SPEECH, SpeechConfig, "speech"),
        _head(path),
        _contacts(path),
        _autoencoder(path),
    )


def _autoencoder(path: Path) -> Autoencoder | None:
    if not (path / AUTOENCODER).is_file():
        return None
    tree = read_json(path / AUTOENCODER, "autoencoder")["autoencoder"]
    return Autoencoder(tree, load_tensors(path / AUTOENCODER_WEIGHTS))


def _contacts(path: Path) -> ContactHead | None:
    if not (path / CONTACTS).is_file():
        return None
    tensors = load_tensors(path / CONTACTS)
    return ContactHead(tensors["weight"], float(tensors["bias"]))


def _head(path: Path) -> OwnHead | None:
    cfg = _part(path / HEAD, HeadConfig, "head")
    if cfg is None:
        return None
    return OwnHead(str(read_json(path / HEAD, "task")["task"]), cfg, load_tensors(path / HEAD_WEIGHTS))


def _codec(path: Path, rows: int) -> TextCodec:
    """Tokenizer and template; without a roles file the tokenizer was trained by onebase."""
    roles = _part(path / ROLES, Roles, "roles")
    tokenizer = Tokenizer.from_file(path / TOKENIZER, roles)
    template = ChatTemplate.from_file(path / TEMPLATE, tuple(tokenizer.specials), roles)
    return TextCodec(tokenizer, template, rows)


def _part(file: Path, kind: type[C], key: str) -> C | None:
    """A config stored in its own file; None where the base has none."""
    if not file.is_file():
        return None
    return from_file(kind, read_json(file, key)[key], str(file))


def put_tensors(model: BaseModel, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Assign tensors to the parameters of a model built on `meta`; every name and shape must match."""
    wanted = {n: p.shape for n, p in model.named_parameters()}
    for name in sorted(wanted.keys() ^ tensors.keys()):
        how = "is missing" if name in wanted else "is not in the config"
        raise ArtifactError(
            f"{path}: tensor {name!r} {how}",
            "use an intact base folder: base.json or the weights were changed",
        )
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise ArtifactError(
                f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}, base.json requires {tuple(shape)}",
                "use an intact base folder: base.json or the weights were changed",
            )
    with understood(path):
        model.load_state_dict(tensors, strict=True, assign=True)
    model.requires_grad_(False)  # a loaded base is frozen; training unfreezes what it trains
