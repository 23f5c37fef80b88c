"""Reads Whisper from CTranslate2: the config from tensor shapes, fused q, k and v, special tokens from tokenizer.json.

Source: CTranslate2, python/ctranslate2/specs/whisper_spec.py and transformer_spec.py, read for the names of variables.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.base.folder import LoadedBase
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.ctranslate2.file import CT2File
from onebase.formats.families import whisper
from onebase.formats.families.encoder import STEM
from onebase.formats.family import Family
from onebase.formats.hf.base import imported
from onebase.formats.hf.files import CONFIG, read_json
from onebase.formats.hf.speech import END, speech_config
from onebase.formats.hf.tokenizer_files import TOKENIZER, read_codec
from onebase.formats.reader import ConfigReader
from onebase.formats.recognise import CT2_FILE
from onebase.formats.rules import Ignore, Rule, Rules, Split, Tie, rename
from onebase.formats.weight_loading import load_weights
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.tokenizer import Tokenizer

SPEC, GELU = "WhisperSpec", 3
NORMS = (("gamma", "weight"), ("beta", "bias"))


def open_ctranslate2(path: Path, *, hashes: bool = False) -> LoadedBase:
    """Read a folder with model.bin, config.json and tokenizer.json. Raises ArtifactError or ConfigError for an unsupported one."""
    source = CT2File(path / CT2_FILE)
    if source.contents.spec != SPEC:
        raise ConfigError(f"{source.where} is a {source.contents.spec}", f"accepted in this format: {SPEC}")
    values = ConfigReader(source.values, source.where)
    theirs = ConfigReader(_config(values, source), source.where, frozenset(source.shapes()))
    cfg = theirs.checked(lambda: whisper.TABLE.read(theirs))
    if not (path / TOKENIZER).is_file():
        raise ArtifactError(
            f"{path} has no {TOKENIZER}", "copy it from the Whisper model that this one was converted from"
        )
    codec = _codec(path, cfg.text.vocab_size)
    tree = read_json(path / CONFIG) if (path / CONFIG).is_file() else {}
    names = {"suppress_ids": "suppress_tokens", "suppress_ids_begin": "begin_suppress_tokens"}
    generation = {key: tree[old] for old, key in names.items() if old in tree}
    speech = speech_config(codec.tokenizer.specials, generation, cfg.text.vocab_size, str(path / CONFIG))
    model = load_weights(cfg, FAMILY, source)
    unread = [*values.unread, *sorted(tree.keys() - names.keys())]
    files = [p for p in path.iterdir() if p.suffix in (".json", ".bin", ".txt")]
    record = imported(path, "ctranslate2", tree | {"model_type": "whisper"}, unread, files, hashes)
    kinds = sorted(set(source.kinds().values()))
    record.add(
        "imported.numbers",
        kinds,
        "read from the source: its number formats; those of whole numbers became float32",
    )
    return LoadedBase(model, codec, record, path, speech=speech)


def _codec(path: Path, rows: int) -> TextCodec:
    """The tokenizer. Folders of this format have no file with the token that ends a text: it is the same in all Whisper models."""
    codec = read_codec(path, rows)
    if END not in codec.tokenizer.specials:
        raise ArtifactError(f"{path / TOKENIZER} has no token {END}", "use the tokenizer of a Whisper model")
    roles = replace(codec.tokenizer.roles, bos=END, eos=END, pad=END, unk=END, stop=(END,))
    return TextCodec(Tokenizer(codec.tokenizer.inner, roles), codec.template, rows)


def _config(values: ConfigReader, source: CT2File) -> dict[str, Any]:
    """A transformers config.json from scalars and shapes. Raises ConfigError for values that enable other features."""
    for key in ("alibi", "start_from_zero_embedding", "scale_embeddings"):
        values.must(f"decoder/{key}", 0, 0, "Whisper does not have it")
    values.must("decoder/pre_norm", 1, 1, "Whisper has its norms before attention and feed-forward")
    values.must("decoder/activation", GELU, GELU, "both trunks use GELU")
    shapes = source.shapes()

    def size(name: str, dim: int, rank: int) -> int:
        shape = shapes.get(name)
        if shape is None or len(shape) != rank:
            raise ArtifactError(
                f"{source.where}: tensor {name!r} is missing or does not have {rank} dimensions",
                "this is not a Whisper model, or the file is damaged",
            )
        return shape[dim]

    tree: dict[str, Any] = {
        "d_model": size("encoder/conv1/weight", 0, 3),
        "num_mel_bins": size("encoder/conv1/weight", 1, 3),
        "max_source_positions": size("encoder/position_encodings/encodings", 0, 2),
        "max_target_positions": size("decoder/position_encodings/encodings", 0, 2),
        "vocab_size": size("decoder/embeddings/weight", 0, 2),
        "tie_word_embeddings": source.contents.second.get("decoder/projection/weight")
        == "decoder/embeddings/weight",
        "activation_function": "gelu",
    }
    for side in ("encoder", "decoder"):
        layers = 0
        while f"{side}/layer_{layers}/ffn/linear_0/weight" in shapes:
            layers += 1
        tree |= {
            f"{side}_layers": layers,
            f"{side}_attention_heads": values.size(f"{side}/num_heads"),
            f"{side}_ffn_dim": size(f"{side}/layer_0/ffn/linear_0/weight", 0, 2),
        }
    return tree


@dataclass(frozen=True)
class NoKey:
    """A fused bias of `parts` parts whose part for keys (at index `at`) is zero: keys have no bias here."""

    parts: int
    at: int

    def there(self, xs: list[Tensor]) -> list[Tensor]:
        (x,) = xs
        parts = list(x.chunk(self.parts))
        if bool((parts[self.at] != 0).any()):
            raise ArtifactError(
                "a fused bias is not 0 for keys, which have no bias in Whisper", "take an intact copy"
            )
        return parts[: self.at] + parts[self.at + 1 :]

    def back(self, xs: list[Tensor]) -> list[Tensor]:
        return [torch.cat([*xs[: self.at], torch.zeros_like(xs[0]), *xs[self.at :]])]


def rules(cfg: BaseConfig) -> Rules:
    """The rules between the variables of a `WhisperSpec` and our tensors."""
    width = cfg.trunks["text"].width
    out: list[Rule | Tie | Ignore] = [
        *_both("encoder/conv1", "codecs.audio.first"),
        *_both("encoder/conv2", "codecs.audio.second"),
        rename("encoder/position_encodings/encodings", "codecs.audio.positions"),
        rename("decoder/embeddings/weight", f"{STEM}.weight"),
        rename("decoder/position_encodings/encodings", f"{STEM}.positions"),
    ]
    out.append(
        Tie("decoder/projection/weight", f"{STEM}.weight")
        if cfg.text.tied
        else rename("decoder/projection/weight", "codecs.text.head.weight")
    )
    for side, name in (("encoder", "audio"), ("decoder", "text")):
        out += _norm(f"{side}/layer_norm", f"trunks.{name}.final_norm")
        for i in range(len(cfg.trunks[name].blocks)):
            a, b = f"{side}/layer_{i}", f"trunks.{name}.blocks.{i}"
            out += [
                *_norm(f"{a}/self_attention/layer_norm", f"{b}.attn_norm"),
                *_fused(f"{a}/self_attention/linear_0", f"{b}.attn", "qkv", width),
                *_both(f"{a}/self_attention/linear_1", f"{b}.attn.o"),
                *_norm(f"{a}/ffn/layer_norm", f"{b}.ff_norm"),
                *_both(f"{a}/ffn/linear_0", f"{b}.ff.up"),
                *_both(f"{a}/ffn/linear_1", f"{b}.ff.down"),
            ]
            if name == "text":
                out += [
                    *_norm(f"{a}/attention/layer_norm", f"{b}.cross_norm"),
                    *_both(f"{a}/attention/linear_0", f"{b}.cross.q"),
                    *_fused(f"{a}/attention/linear_1", f"{b}.cross", "kv", width),
                    *_both(f"{a}/attention/linear_2", f"{b}.cross.o"),
                ]
    return out


def _both(theirs: str, ours: str) -> list[Rule]:
    return [rename(f"{theirs}/{kind}", f"{ours}.{kind}") for kind in ("weight", "bias")]


def _norm(theirs: str, ours: str) -> list[Rule]:
    return [rename(f"{theirs}/{a}", f"{ours}.{b}") for a, b in NORMS]


def _fused(theirs: str, ours: str, parts: str, width: int) -> list[Rule]:
    """One fused matrix for `parts`, and one fused bias whose part for keys is zero."""
    weights = tuple(f"{ours}.{p}.weight" for p in parts)
    biases = tuple(f"{ours}.{p}.bias" for p in parts if p != "k")
    return [
        Rule((f"{theirs}/weight",), weights, (Split((width,) * len(parts)),)),
        Rule((f"{theirs}/bias",), biases, (NoKey(len(parts), parts.index("k")),)),
    ]


FAMILY = Family(("whisper",), whisper.TABLE.read, whisper.TABLE.write, rules)
