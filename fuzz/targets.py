"""What reads foreign files, one function a kind of file: bytes in. Raises nothing but what is a bug.

Each target puts the bytes in the place of one file of a tiny good model and opens the whole as a user would.
"""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

import onebase
from onebase.errors import UserError
from onebase.formats.hf.base import layout_of
from onebase.formats.hf.files import CONFIG, INDEX, WEIGHTS
from onebase.formats.hf.tokenizer_files import read_codec
from onebase.formats.peft.folder import Target
from onebase.methods.config import AdapterConfig, part_field
from onebase.methods.folder import bound_to
from onebase.methods.lora_config import LoraConfig
from onebase.methods.peft import write
from onebase.modality.text.template import ChatTemplate
from onebase.opening.names import open_foreign, read_adapter
from tests.helpers import tiny_base

ROOM = "ONEBASE_FUZZ_ROOM"
TALK = [{"role": "user", "content": "Hello <|eos|>"}, {"role": "assistant", "content": "Yes."}]
_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


def room() -> str | None:
    """Where folders for files that change often are made: in memory, where the system has such a place."""
    return os.environ.get(ROOM) or ("/dev/shm" if Path("/dev/shm").is_dir() else None)


def _folder() -> Path:
    made = tempfile.TemporaryDirectory(prefix="onebase-fuzz-", dir=room())
    _kept.append(made)
    return Path(made.name)


@functools.cache
def good() -> Path:
    """A folder with a good model in every format: hf, shards, gguf/a.gguf, peft, sentence, merges."""
    root = _folder()
    own = tiny_base(portable=True, width=16, head_dim=8, depth=1)
    base = onebase.Base(own)
    base.export(root / "hf")
    base.export(root / "gguf" / "a.gguf", format="gguf", pre="llama-bpe")
    shutil.copytree(root / "hf", root / "shards")
    from safetensors.torch import load_file, save_file

    tensors = load_file(root / "hf" / WEIGHTS)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({n: tensors[n] for n in some}, root / "shards" / file)
    (root / "shards" / WEIGHTS).unlink()
    table = {n: file for file, some in parts.items() for n in some}
    (root / "shards" / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))
    deltas = {
        f"{site}.{end}": torch.ones(shape)
        for site, proj in own.model.sites().items()
        for end, shape in (("a", (2, proj.d_in)), ("b", (proj.d_out, 2)))
    }
    (root / "peft").mkdir()
    own_part = part_field("lora", LoraConfig(rank=2, alpha=4.0))
    config = AdapterConfig(method="lora", task="complete", base=bound_to(own), **own_part)
    write(root / "peft", config, deltas, Target(own.model, lambda: layout_of(own)[0]))
    shutil.copytree(root / "hf", root / "merges")
    model = json.loads((root / "hf" / "tokenizer.json").read_text())["model"]
    (root / "merges" / "tokenizer.json").unlink()
    (root / "merges" / "vocab.json").write_text(json.dumps(model["vocab"]))
    (root / "merges" / "merges.txt").write_text(
        "".join(f"{m if isinstance(m, str) else ' '.join(m)}\n" for m in model["merges"])
    )
    said = {"tokenizer_class": "GPT2Tokenizer"} | {f"{k}_token": "<|eos|>" for k in ("bos", "eos", "unk")}
    (root / "merges" / "tokenizer_config.json").write_text(json.dumps(said))
    shutil.copytree(root / "hf", root / "sentence")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate({"": "Transformer", "1_Pooling": "Pooling"}.items())
    ]
    (root / "sentence" / "modules.json").write_text(json.dumps(modules))
    (root / "sentence" / "1_Pooling").mkdir()
    (root / "sentence" / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return root


@functools.cache
def _copy(kind: str) -> Path:
    """A copy of a good folder, to be damaged."""
    place = _folder() / kind
    shutil.copytree(good() / kind, place)
    return place


def _damaged(kind: str, name: str, data: bytes, opened: Callable[[Path], object]) -> None:
    folder = _copy(kind)
    (folder / name).write_bytes(data)
    try:
        opened(folder)
    except UserError:
        pass
    finally:
        shutil.copy(good() / kind / name, folder / name)


def _used(path: Path) -> None:
    """Opened, and used a little: what is read must also work."""
    found = open_foreign(path)
    assert found is not None
    tokenizer = found.codec.tokenizer
    ids = tokenizer.framed(tokenizer.encode("The fox, 12!\n"))
    tokenizer.decode(ids)
    if ids and found.model.cfg.text.context > len(ids):
        found.model.logits(torch.tensor([ids]))


def gguf(data: bytes) -> None:
    _damaged("gguf", "a.gguf", data, lambda folder: _used(folder / "a.gguf"))


def safetensors(data: bytes) -> None:
    _damaged("hf", WEIGHTS, data, _used)


def index(data: bytes) -> None:
    _damaged("shards", INDEX, data, _used)


def config(data: bytes) -> None:
    _damaged("hf", CONFIG, data, _used)


def tokenizer(data: bytes) -> None:
    _damaged("hf", "tokenizer.json", data, _codec)


def tokenizer_config(data: bytes) -> None:
    _damaged("hf", "tokenizer_config.json", data, _codec)


def generation_config(data: bytes) -> None:
    _damaged("hf", "generation_config.json", data, _codec)


def vocab(data: bytes) -> None:
    _damaged("merges", "vocab.json", data, _codec)


def merges(data: bytes) -> None:
    _damaged("merges", "merges.txt", data, _codec)


def sentence(data: bytes) -> None:
    _damaged("sentence", "modules.json", data, _used)


def _codec(folder: Path) -> None:
    codec = read_codec(folder, 400)
    ids = codec.tokenizer.encode("The <|eos|> fox 😀")
    codec.tokenizer.decode(codec.tokenizer.framed(ids))


@functools.cache
def _base() -> onebase.Base:
    return onebase.load(good() / "hf")


def _adapter(folder: Path) -> None:
    _base().with_adapter(onebase.Adapter(read_adapter(_base().loaded, folder))).logits([1, 2, 3])


def peft_config(data: bytes) -> None:
    _damaged("peft", "adapter_config.json", data, _adapter)


def peft_weights(data: bytes) -> None:
    _damaged("peft", "adapter_model.safetensors", data, _adapter)


def template(data: bytes) -> None:
    """A chat template; bytes that are no UTF-8 are read as the folder's file is."""
    try:
        made = ChatTemplate(data.decode("utf-8", "replace"), ("<|eos|>",), "fuzz")
        made.segments(TALK, tagged=False)
    except UserError:
        pass


#: the target, and the good file that damage begins from
TARGETS: dict[str, tuple[Callable[[bytes], None], str]] = {
    "gguf": (gguf, "gguf/a.gguf"),
    "safetensors": (safetensors, f"hf/{WEIGHTS}"),
    "index": (index, f"shards/{INDEX}"),
    "config": (config, f"hf/{CONFIG}"),
    "tokenizer": (tokenizer, "hf/tokenizer.json"),
    "tokenizer_config": (tokenizer_config, "hf/tokenizer_config.json"),
    "generation_config": (generation_config, "hf/generation_config.json"),
    "vocab": (vocab, "merges/vocab.json"),
    "merges": (merges, "merges/merges.txt"),
    "sentence": (sentence, "sentence/modules.json"),
    "peft_config": (peft_config, "peft/adapter_config.json"),
    "peft_weights": (peft_weights, "peft/adapter_model.safetensors"),
    "template": (template, "hf/chat_template.jinja"),
}
