"""Folders and files that hold a model in a form that is not read here: what they are, and what to give instead.

Known by the names of their files alone; nothing of them is opened but the first bytes of what may be a pointer of Git LFS.
"""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from onebase.errors import ArtifactError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
POINTER = b"version https://git-lfs.github.com/spec/"
MAX_NAMES = 10_000
_OTHER = "give the same model as a Hugging Face folder (config.json and *.safetensors) or a .gguf file"
_NONE = "give a model that reads text, pictures or sound"
_CLIP = "give the same model as transformers has it (config.json with model_type clip, *.safetensors)"
_TRAINED = "give the model that the training saved (save_pretrained; zero_to_fp32.py --safe_serialization for DeepSpeed's)"
_META = (
    "give the same model as a Hugging Face folder (repos often have both, or end in -hf), or convert it where transformers is installed "
    "(convert_llama_weights_to_hf, convert_mistral_weights_to_hf)"
)
# The first that fits, by patterns of which one must be there: (patterns, what it is, what to give).
_PUBLISHED: tuple[tuple[Sequence[str], str, str], ...] = (
    (("model_index.json",), "is a pipeline of diffusers, which makes pictures", _NONE),
    (("diffusion_pytorch_model*",), "is a part of a pipeline of diffusers", _NONE),
    (("open_clip_*",), "has a CLIP as OpenCLIP saves it", _CLIP),
    (
        ("params.json", "consolidated*", "tokenizer.model.v*"),
        "has its weights as Meta and Mistral publish them",
        _META,
    ),
    (("openvino_*.xml",), "has its weights as OpenVINO has them", _OTHER),  # its *.bin is no pickle
    (("*.distcp", ".metadata"), "is a checkpoint in shards of torch.distributed", _TRAINED),
    (("zero_to_fp32.py", "global_step*"), "is a checkpoint of DeepSpeed", _TRAINED),
)
_FORMATS: tuple[tuple[Sequence[str], str, str], ...] = tuple(
    (patterns, f"has its weights as {name} has them", _OTHER)
    for name, patterns in {
        "ONNX": ("*.onnx", "onnx/*.onnx"),
        "an older MLX": ("*.npz",),
        "TensorFlow": ("*.h5", "*.keras", "saved_model.pb"),
        "Flax": ("*.msgpack",),
        "Core ML": ("*.mlpackage", "*.mlmodelc"),
        "TensorFlow Lite": ("*.tflite",),
        "TensorRT": ("*.engine",),
        "NeMo": ("*.nemo",),
    }.items()
)
_PICKLED = (
    "has its weights as a pickle ({}), which can run any code when opened",
    "ask for safetensors: most models have them, or convert in a place where nothing can be harmed",
)


def what_it_is(path: Path) -> ArtifactError | None:
    """Why a folder or file is no model that is read here; None where nothing tells."""
    if path.is_file():
        return _a_file(path)
    names = _names(path)
    inside = [n for n in names if (path / n / "config.json").is_file()]
    if "adapter_config.json" in names:
        return ArtifactError(
            f"{path} is an adapter of PEFT, and no base",
            f"give the base that it was made for, and --adapter {path}",
        )
    if "refs" in names and "snapshots" in names:
        kept = sorted((path / "snapshots").iterdir()) if (path / "snapshots").is_dir() else []
        return ArtifactError(
            f"{path} is a folder of the Hub's cache",
            f"give one of its snapshots: {kept[0] if kept else 'none is there'}",
        )
    steps = sorted((n for n in inside if n.startswith("checkpoint-")), key=lambda n: (len(n), n))
    if (found := _first(str(path), names, _PUBLISHED)) is not None:
        return found
    if steps:
        return ArtifactError(
            f"{path} holds checkpoints of a training, each a model", f"give one: {path / steps[-1]}"
        )
    if any(n.endswith(".safetensors") for n in names):
        return ArtifactError(
            f"{path} has weights, but no config.json that says of which model",
            "take the whole folder of the model",
        )
    if (found := by_names(str(path), names)) is not None:
        return found
    if inside:
        return ArtifactError(
            f"{path} is no model in a format that is known, but a folder of models",
            f"give one: {path / inside[0]}",
        )
    return None


def no_weights(path: Path, wanted: str) -> ArtifactError:
    """Why a folder with a config.json has no weights to read. wanted: the names that were looked for."""
    names = _names(path)
    if "adapter_model.safetensors" in names:
        return ArtifactError(
            f"{path} has the weights of an adapter, and none of a base",
            f"give the base that it was made for, and --adapter {path}",
        )
    others = [n for n in names if n.endswith(".safetensors")]
    named = [
        n for n in others if fnmatch(n, "model.*.safetensors") or fnmatch(n, "pytorch_model*.safetensors")
    ]
    if named:
        return ArtifactError(
            f"{path} has its weights as {named[0]}, and neither {wanted}",
            "if they are the whole model, call them model.safetensors",
        )
    if any(fnmatch(n, "model-*-of-*.safetensors") for n in others):
        return ArtifactError(
            f"{path} has shards, but no model.safetensors.index.json that lists them",
            "take an intact copy of the folder",
        )
    if (found := by_names(str(path), names)) is not None:
        return found
    return ArtifactError(f"{path} has neither {wanted}", "give a folder of a saved model")


def no_model_type(config: dict[str, Any], where: str) -> ArtifactError | None:
    """Why a config.json names no `model_type`; None where nothing tells."""
    if "_class_name" in config or "_diffusers_version" in config:
        what = f"of a part of a diffusers pipeline ({config.get('_class_name')})"
    elif "pretrained_cfg" in config or ("architecture" in config and "num_features" in config):
        what = f"of a model of timm ({config.get('architecture')})"
    elif "model_cfg" in config and "preprocess_cfg" in config:
        what = "of a CLIP as OpenCLIP saves it"
    elif {"bos_token", "eos_token", "unk_token"} <= config.keys():
        what = "of CTranslate2, which is read for Whisper alone"
    elif "peft_type" in config:
        what = "of an adapter of PEFT"
    else:
        return None
    return ArtifactError(f"{where} is {what}: it names no model_type", _OTHER)


def packed(config: dict[str, Any], where: str) -> ArtifactError | None:
    """Why weights in few bits are not read, by the key of config.json that says how they were packed; None where none does."""
    for key in ("quantization_config", "quantization", "compression_config"):
        value = config.get(key)
        if value in (None, {}, False):
            continue
        said = value if isinstance(value, dict) else {}
        name = said.get("quant_method") or ("mlx" if key == "quantization" else "a way that is not named")
        bits = said.get("bits")
        return ArtifactError(
            f"{where}: '{key}': its weights are packed in a way that is not read here ({name}"
            + (f", {bits} bits)" if isinstance(bits, int) else ")"),
            "give the model from before it was quantised, or a .gguf file of it; "
            "onebase keeps weights in few bits itself (docs/commands.md: quantize)",
        )
    return None


def pointer(path: Path) -> ArtifactError | None:
    """Is this file no content but what Git LFS keeps in its place?"""
    try:
        with open(path, "rb") as f:
            head = f.read(len(POINTER))
    except OSError:
        return None
    if head != POINTER:
        return None
    return ArtifactError(
        f"{path} is a pointer of Git LFS, not the file itself",
        "fetch the files: git lfs pull, or hf download REPO",
    )


def _a_file(path: Path) -> ArtifactError | None:
    if (found := pointer(path)) is not None:
        return found
    if path.suffix == ".safetensors":
        return ArtifactError(f"{path} is one file of weights", f"give its folder: {path.parent}")
    if path.suffix in PICKLES:
        what, remedy = _PICKLED
        return ArtifactError(f"{path} {what.format(path.name)}", remedy)
    return _first(str(path), [path.name], (*_PUBLISHED, *_FORMATS))


def by_names(where: str, names: Sequence[str]) -> ArtifactError | None:
    """What a folder without weights as safetensors holds, by the names of its files; None where none tells."""
    if (found := _first(where, names, _PUBLISHED)) is not None:
        return found
    if ggufs := [n for n in names if n.endswith(".gguf")]:
        return ArtifactError(
            f"{where} is a folder of GGUF files", f"name one of them: {where}/{f', {where}/'.join(ggufs[:4])}"
        )
    if pickled := [n for n in names if n.endswith(PICKLES)]:
        what, remedy = _PICKLED
        return ArtifactError(f"{where} {what.format(pickled[0])}", remedy)
    return _first(where, names, _FORMATS)


def _first(
    where: str, names: Sequence[str], kinds: Sequence[tuple[Sequence[str], str, str]]
) -> ArtifactError | None:
    for patterns, what, remedy in kinds:
        if (name := next((n for n in names if any(fnmatch(n, p) for p in patterns)), None)) is not None:
            return ArtifactError(f"{where} {what} ({name}), which is not read here", remedy)
    return None


def _names(path: Path) -> list[str]:
    """What lies in a folder, and in its folder `onnx`."""
    try:
        found = [p.name for p, _ in zip(path.iterdir(), range(MAX_NAMES), strict=False)]
        found += [f"onnx/{p.name}" for p in (path / "onnx").iterdir()] if "onnx" in found else []
    except OSError:
        return []
    return sorted(found)
